from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunCommand(_message.Message):
    __slots__ = ("argv", "env", "directory", "user", "tty", "stdin", "output", "rows", "columns")
    ARGV_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    argv: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    directory: str
    user: str
    tty: bool
    stdin: bool
    output: bool
    rows: int
    columns: int
    def __init__(self, argv: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., directory: _Optional[str] = ..., user: _Optional[str] = ..., tty: _Optional[bool] = ..., stdin: _Optional[bool] = ..., output: _Optional[bool] = ..., rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...

class AccessQuestion(_message.Message):
    __slots__ = ("task_id", "reach", "run", "top", "usage", "signal")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    REACH_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    reach: bool
    run: RunCommand
    top: str
    usage: bool
    signal: int
    def __init__(self, task_id: _Optional[str] = ..., reach: _Optional[bool] = ..., run: _Optional[_Union[RunCommand, _Mapping]] = ..., top: _Optional[str] = ..., usage: _Optional[bool] = ..., signal: _Optional[int] = ...) -> None: ...

class TerminalSize(_message.Message):
    __slots__ = ("rows", "columns")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...

class ToTask(_message.Message):
    __slots__ = ("access_id", "question", "input", "input_end", "size", "taken", "close", "asked_at")
    ACCESS_ID_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    INPUT_END_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    ASKED_AT_FIELD_NUMBER: _ClassVar[int]
    access_id: str
    question: AccessQuestion
    input: bytes
    input_end: bool
    size: TerminalSize
    taken: int
    close: bool
    asked_at: str
    def __init__(self, access_id: _Optional[str] = ..., question: _Optional[_Union[AccessQuestion, _Mapping]] = ..., input: _Optional[bytes] = ..., input_end: _Optional[bool] = ..., size: _Optional[_Union[TerminalSize, _Mapping]] = ..., taken: _Optional[int] = ..., close: _Optional[bool] = ..., asked_at: _Optional[str] = ...) -> None: ...

class Cells(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, text: _Optional[_Iterable[str]] = ...) -> None: ...

class Processes(_message.Message):
    __slots__ = ("titles", "rows")
    TITLES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    titles: Cells
    rows: _containers.RepeatedCompositeFieldContainer[Cells]
    def __init__(self, titles: _Optional[_Union[Cells, _Mapping]] = ..., rows: _Optional[_Iterable[_Union[Cells, _Mapping]]] = ...) -> None: ...

class NotBegun(_message.Message):
    __slots__ = ("text", "code")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    text: str
    code: int
    def __init__(self, text: _Optional[str] = ..., code: _Optional[int] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("stream", "data")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    stream: int
    data: bytes
    def __init__(self, stream: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Exit(_message.Message):
    __slots__ = ("code", "known")
    CODE_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    code: int
    known: bool
    def __init__(self, code: _Optional[int] = ..., known: _Optional[bool] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "text")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    code: int
    text: str
    def __init__(self, code: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class FromTask(_message.Message):
    __slots__ = ("access_id", "asked", "done", "begun", "not_begun", "processes", "usage", "refused", "output", "taken", "exit")
    ACCESS_ID_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    BEGUN_FIELD_NUMBER: _ClassVar[int]
    NOT_BEGUN_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    access_id: str
    asked: bool
    done: bool
    begun: int
    not_begun: NotBegun
    processes: Processes
    usage: bytes
    refused: Refusal
    output: Output
    taken: int
    exit: Exit
    def __init__(self, access_id: _Optional[str] = ..., asked: _Optional[bool] = ..., done: _Optional[bool] = ..., begun: _Optional[int] = ..., not_begun: _Optional[_Union[NotBegun, _Mapping]] = ..., processes: _Optional[_Union[Processes, _Mapping]] = ..., usage: _Optional[bytes] = ..., refused: _Optional[_Union[Refusal, _Mapping]] = ..., output: _Optional[_Union[Output, _Mapping]] = ..., taken: _Optional[int] = ..., exit: _Optional[_Union[Exit, _Mapping]] = ...) -> None: ...

class Said(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListenRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Heard(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
