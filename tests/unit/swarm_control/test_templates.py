"""Templates: what they mean, how they fail, and that they never fail in another way."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.swarm import template_eval, template_syntax
from runtime.swarm.template_eval import Value, evaluate, printed, quoted
from runtime.swarm.template_syntax import parse
from runtime.swarm.templates import (
    DUMMY,
    PayloadContext,
    TemplateContext,
    TemplateError,
    expand,
    expand_payload,
    expand_text,
)
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

CONTEXT = dataclasses.replace(DUMMY, service_labels={"b": "2", "a": "1"}, task_slot="7", node_hostname="host")

MEANINGS = [
    ("plain }} text", "plain }} text"),
    ("{{.Service.Name}}-{{ .Task.Slot }}", "servicename-7"),
    ("{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", "os/architecture"),
    ('{{join "-" .Service.Name .Node.Hostname "x"}}', "servicename-host-x"),
    ('{{index .Service.Labels "a"}}', "1"),
    ('{{index .Service.Labels "none"}}', ""),
    ("{{.Service.Labels.b}}", "2"),
    ("{{.Service.Labels}}", "map[a:1 b:2]"),
    ("{{.Node.Platform}}", "{architecture os}"),
    ('{{"a\\tb\\u00e9\\"" }}', 'a\tbé"'),
    ("{{`raw \\n`}}", "raw \\n"),
    ("{{12}} {{-3}} {{0x10}} {{1.5}} {{true}}", "12 -3 16 1.5 true"),
    ('{{.Service.Name | printf "%s:%s" "x"}}', "x:servicename"),
    ("{{print 1 2}}{{print 1 `a` 2}}", "1 21a2"),
    ("{{println `a` 1}}", "a 1\n"),
    ('{{printf `%d%% %v %q` 5 true `a"b`}}', '5% true "a\\"b"'),
    ("{{if .Service.Labels.a}}yes{{else}}no{{end}}", "yes"),
    ("{{if not .Service.Labels.a}}yes{{else}}no{{end}}", "no"),
    ("{{if false}}1{{else if eq .Task.Slot `7`}}2{{else}}3{{end}}", "2"),
    ("{{if and true `` (index .No 1)}}1{{else}}2{{end}}", "2"),
    ("{{or `` `x` .No}}", "x"),
    ("{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}", "a=1;b=2;"),
    ("{{range .Service.Labels}}{{.}},{{end}}", "1,2,"),
    ("{{range $v := .Service.Labels}}{{$v}}{{else}}none{{end}}", "12"),
    ("{{with .Node}}{{.ID}}{{$.Task.ID}}{{end}}", "nodeidtaskid"),
    ("{{with ``}}x{{else}}y{{end}}", "y"),
    ("{{$x := `1`}}{{if true}}{{$x = `2`}}{{$y := `3`}}{{$x}}{{$y}}{{end}}{{$x}}", "232"),
    ("a {{- /* comment */ -}} b", "ab"),
    ("a {{/* comment */}} b", "a  b"),
    ("x  {{- .Task.ID -}}  y", "xtaskidy"),
    ("{{(index .Service.Labels `a`)}}{{(print `x`) | len}}", "11"),
    ("{{len .Service.Labels}} {{len `é`}}", "2 2"),
    ("{{eq 1 2 1}} {{ne `a` `b`}} {{lt 1 2}} {{ge `b` `a`}} {{le 2 2}} {{gt 1 2}}", "true true true true true false"),
    ("{{(.Node).Platform.OS}}", "os"),
    ("{{and 1 2}}{{and 0 2}}{{or 0 `` }}{{1 | and 2}}", "201"),
    ("{{print print 1}}{{println}}", "1\n"),
    ('{{"\\x41\\101\\U0001F600"}}', "AA\U0001f600"),
]


@pytest.mark.parametrize(("source", "text"), MEANINGS)
def test_templates_mean_what_they_mean_in_go(source: str, text: str) -> None:
    assert expand_text(source, CONTEXT) == text


FAILURES = [
    ("{{.Nope}}", '1:2: executing "expansion" at <.Nope>: can\'t evaluate field Nope in type *template.Context'),
    ("x\n {{.Node.Nope}}", "2:8: "),
    ("{{.Node.Nope}}", '1:7: executing "expansion" at <.Node.Nope>: can\'t evaluate field Nope in type struct { ID '),
    ("é{{.Nope}}", "1:4: "),
    ("{{.Service.ID.X}}", "can't evaluate field X in type string"),
    ("{{.Service.Labels.k}}", 'at <.Service.Labels.k>: map has no entry for key "k"'),
    ("{{nope}}", 'template: expansion:1: function "nope" not defined'),
    ("{{if false}}{{nope}}{{end}}", 'function "nope" not defined'),
    ("{{(print (nope))}}", 'function "nope" not defined'),
    ("{{secret `x`}}", 'function "secret" not defined'),
    ("a\n{{", "template: expansion:2: unclosed action"),
    ("{{.A", "unclosed action"),
    ('{{"a}}', "unterminated quoted string"),
    ("{{`a}}", "unterminated raw quoted string"),
    ("{{/* a }}", "unclosed comment"),
    ("{{/* a */ x}}", "comment ends before closing delimiter"),
    ("{{if true}}", "unexpected EOF"),
    ("{{end}}", "unexpected {{end}}"),
    ("{{else}}", "unexpected {{else}}"),
    ("{{if true}}{{else}}{{else}}{{end}}", "expected end; found {{else}}"),
    ("{{if}}{{end}}", "missing value for command"),
    ("{{}}", "missing value for command"),
    ("{{(print}}", "unclosed left paren"),
    ("{{print)}}", "unexpected ')' in command"),
    ("{{.A.B `x`}}", "can't give argument to non-function .A.B"),
    ("{{1 | 2}}", "non executable command in pipeline stage 2"),
    ("{{1 | .Node}}", "can't give argument to non-function .Node"),
    ("{{$x}}", 'undefined variable "$x"'),
    ("{{$x = 1}}", 'undefined variable "$x"'),
    ("{{if true}}{{$y := 1}}{{end}}{{$y}}", 'undefined variable "$y"'),
    ("{{define `x`}}{{end}}", "{{define}} is not supported here"),
    ("{{template `x`}}", "is not supported here"),
    ("{{break}}", "is not supported here"),
    ("{{join}}", "a separator is needed"),
    ("{{join `a` 1}}", "wrong type for value; expected string; got int"),
    ("{{index 5 1}}", "can't index item of type int"),
    ("{{index .Service.Labels 1}}", "value has type int; should be string"),
    ("{{index `ab` 7}}", "index out of range: 7"),
    ("{{len 5}}", "len of type int"),
    ("{{not}}", "wrong number of args for not: got 0"),
    ("{{and}}", "wrong number of args for and"),
    ("{{eq 1}}", "missing argument for comparison"),
    ("{{eq 1 `1`}}", "incompatible types for comparison"),
    ("{{lt true false}}", "invalid type for comparison"),
    ("{{printf `%x` 1}}", "verb %x"),
    ("{{printf `a` 1}}", "more arguments than verbs"),
    ("{{printf 1}}", "expected string; got int"),
    ("{{nil}}", "nil is not a command"),
    ("{{range 5}}{{end}}", "range can't iterate over a value of type int"),
    ("{{1a}}", "bad number syntax"),
    ("{{`a`.b}}", "unexpected '.b' after a value"),
    ("{{#}}", "unrecognized character in action: U+0023"),
    ('{{"\\y"}}', "invalid syntax in quoted string"),
    ('{{"\\ud800"}}', "invalid character in quoted string"),
    ("{{with 1}}{{else if 2}}{{end}}", "unexpected if in else"),
    ("{{end x}}", "unexpected text in end"),
    ("{{if true}}{{else x}}{{end}}", "unexpected text in else"),
    ("{{if false}}{{$y := 1}}{{else}}{{$y}}{{end}}", "undefined variable: $y"),
    ("{{if false}}{{$y := 1}}{{else}}{{$y = 2}}{{end}}", 'undefined variable "$y"'),
    ("{{.Service.Labels | len | index `a` 0}}", "can't index item of type int"),
    ("{{index .Service.Labels .Service}}", "value has type struct"),
    ("{{eq .Service.Labels 1}}", "incompatible types for comparison"),
    ("{{len .Service}}", "len of type struct"),
    ("{{join `,` .Service.Labels}}", "expected string; got map[string]string"),
    ("(" * 9 + "{{" + "(" * 60 + "1" + ")" * 60 + "}}", "nested deeper than 50"),
    ("{{if true}}" * 60 + "{{end}}" * 60, "nested deeper than 50"),
    ("{{if 1}}" + "{{else if 1}}" * 60 + "{{end}}", "nested deeper than 50"),
]


@pytest.mark.parametrize(("source", "text"), FAILURES)
def test_a_bad_template_says_where_and_what(source: str, text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        expand_text(source, CONTEXT)
    assert str(caught.value).startswith("template: expansion:")
    assert text in str(caught.value)


def test_an_evaluation_is_bounded_in_steps_and_output(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = dataclasses.replace(CONTEXT, service_labels={str(number): "x" * 100 for number in range(100)})
    nested = "{{range $.Service.Labels}}" * 4 + "{{end}}" * 4
    with pytest.raises(TemplateError, match="steps"):
        expand_text(nested, labels)
    monkeypatch.setattr(template_eval, "OUTPUT_MAX", 1000)
    with pytest.raises(TemplateError, match="longer than 1000"):
        expand_text("{{range .Service.Labels}}{{.}}{{end}}", labels)
    with pytest.raises(TemplateError, match="longer than 1000"):
        expand_text("{{$x := print .Service.Labels}}", labels)
    monkeypatch.setattr(template_syntax, "SIZE_MAX", 10)
    with pytest.raises(TemplateError, match="longer than 10"):
        expand_text("{{.Task.ID}}", labels)


FRAGMENTS = st.sampled_from(
    [
        "{{", "}}", "{{-", "-}}", " ", "if", "else", "end", "range", "with", ".", ".Service", ".Labels", ".a", "$",
        "$x",
        ":=", "=", "|", "(", ")", ",", '"a"', "`b`", "1", "-2", "0x", "1.5e3", "true", "nil", "join", "index", "printf",
        "print", "eq", "and", "or", "not", "len", "lt", '"', "`", "/*", "*/", "\\", "\n", "é", "%s", '"%d"', "\x00",
    ]
)  # fmt: skip


@given(st.lists(FRAGMENTS, max_size=30).map("".join) | st.text(max_size=40).map(lambda text: "{{" + text + "}}"))
@example("{{" + "-" * 50 + "}}")
@example("{{index `a` 0 0}}")
@example("{{printf `%` 1}}")
def test_any_text_expands_or_ends_in_a_template_error(source: str) -> None:
    try:
        outcome = "text: " + expand_text(source, CONTEXT)
    except TemplateError as error:
        outcome = str(error)
    assert outcome.startswith(("text: ", "template: expansion:"))


@given(st.text())
def test_text_without_actions_is_itself(text: str) -> None:
    source = text.replace("{{", "")
    assert evaluate(source, parse(source), None, {}) == source


@given(st.text(max_size=20))
def test_a_quoted_text_reads_back_as_itself_when_it_is_printable(text: str) -> None:
    printable = "".join(letter for letter in text if letter.isprintable() and ord(letter) < 0x10000)
    assert expand_text("{{" + quoted(printable) + "}}", CONTEXT) == printable


def test_values_print_as_in_go() -> None:
    values: tuple[Value, ...] = (None, True, 1, 2.5, ["a", 1], {"b": 1, "a": 2})
    assert [printed(value) for value in values] == [
        "<no value>",
        "true",
        "1",
        "2.5",
        "[a 1]",
        "map[a:2 b:1]",
    ]


def test_lists_and_nothing_are_ranged_over() -> None:
    assert value_of("{{range $i, $v := .}}{{$i}}{{$v}} {{end}}", ["a", "b"]) == "0a 1b "
    assert value_of("{{range .}}x{{else}}none{{end}}", []) == "none"
    assert value_of("{{range .}}x{{else}}none{{end}}", None) == "none"
    assert value_of("{{index . 1}}", ["a", "b"]) == "b"
    with pytest.raises(TemplateError, match="nil data; no entry for key 'A'"):
        value_of("{{.A}}", None)


def value_of(source: str, dot: Value) -> str:
    return evaluate(source, parse(source), dot, {})


def test_a_context_is_made_of_task_and_node() -> None:
    task = objects.Task(id="t", service_id="s", node_id="n")
    task.service_annotations.name = "web"
    task.service_annotations.labels["k"] = "v"
    node = types.NodeDescription(hostname="h", platform=types.Platform(architecture="x86_64", os="linux"))
    context = TemplateContext.of(task, node)
    fields = (".Service.ID", ".Service.Labels.k", ".Node.Hostname", ".Node.Platform.OS", ".Task.Name", ".Task.Slot")
    source = " ".join("{{" + field + "}}" for field in fields)
    assert expand_text(source, context) == "s v h linux web.n.t n"
    task.slot = 3
    assert expand_text("{{.Task.Name}} {{.Task.Slot}}", TemplateContext.of(task)) == "web.3.t 3"


def test_the_fields_of_a_container_that_are_templates_are_expanded_and_no_others() -> None:
    template = "{{.Task.Slot}}"
    mount = types.Mount(source=f"/s{template}", target=f"/t{template}")
    mount.volume_options.labels["k"] = template
    mount.volume_options.driver_config.options["o"] = template
    container = specs.ContainerSpec(
        image=f"i{template}",
        hostname=f"h-{template}",
        env=[f"A=b={template}", f"{template}=x", template],
        args=[template],
        labels={"l": template},
        mounts=[mount],
    )
    before = container.SerializeToString(deterministic=True)
    full = expand(container, CONTEXT)
    assert full.hostname == "h-7"
    assert list(full.env) == ["A=b=7", f"{template}=x", template]
    assert (full.mounts[0].source, full.mounts[0].target) == ("/s7", "/t7")
    assert dict(full.mounts[0].volume_options.labels) == {"k": "7"}
    assert dict(full.mounts[0].volume_options.driver_config.options) == {"o": "7"}
    assert (full.image, list(full.args), dict(full.labels)) == (container.image, [template], {"l": template})
    assert container.SerializeToString(deterministic=True) == before


FIELD_FAILURES = [
    (
        specs.ContainerSpec(env=["X={{.Nope}}"]),
        'expanding env failed: expanding env "X={{.Nope}}": template: expansion:1:2: ',
    ),
    (specs.ContainerSpec(hostname="{{.Nope}}"), "expanding hostname failed: template: expansion:1:2: "),
    (
        specs.ContainerSpec(mounts=[types.Mount(source="{{x}}")]),
        'expanding mounts failed: expanding mount source "{{x}}": ',
    ),
    (
        specs.ContainerSpec(mounts=[types.Mount(target="{{x}}")]),
        'expanding mounts failed: expanding mount target "{{x}}": ',
    ),
]


@pytest.mark.parametrize(("container", "text"), FIELD_FAILURES)
def test_an_error_names_the_field(container: specs.ContainerSpec, text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        expand(container, CONTEXT)
    assert str(caught.value).startswith(text)


PAYLOAD = PayloadContext(CONTEXT, secrets={"s": b"hush\xff"}, configs={"c": b"conf"}, env={"E": "value"})
GOLANG = types.Driver(name="golang")


def test_a_payload_sees_secrets_configs_and_environment() -> None:
    source = b'{{config "c"}} {{env "E"}}{{env "unset"}} {{.Service.Name}}'
    assert expand_payload(source, GOLANG, PAYLOAD, secret=False) == (b"conf value servicename", False)


def test_a_config_that_used_a_secret_is_sensitive_and_bytes_pass_unchanged() -> None:
    assert expand_payload(b'\xfe{{secret "s"}}', GOLANG, PAYLOAD, secret=False) == (b"\xfehush\xff", True)


def test_a_payload_without_templating_is_itself() -> None:
    assert expand_payload(b"{{x}}", None, PAYLOAD, secret=False) == (b"{{x}}", False)
    assert expand_payload(b"{{x}}", None, PAYLOAD, secret=True) == (b"{{x}}", True)
    with pytest.raises(TemplateError, match="expected string; got int"):
        expand_payload(b"{{env 1}}", GOLANG, PAYLOAD, secret=False)
    with pytest.raises(TemplateError, match="unrecognized template type"):
        expand_payload(b"", types.Driver(name="jinja"), PAYLOAD, secret=False)


@pytest.mark.parametrize(
    "source", [b'{{range secret "s"}}{{end}}', b'{{index (secret "s") "x"}}', b'{{config "hush"}}']
)
def test_errors_never_show_a_secret(source: bytes) -> None:
    with pytest.raises(TemplateError) as caught:
        expand_payload(source + b"hush", GOLANG, PAYLOAD, secret=True)
    assert "hush" not in str(caught.value)
    assert str(caught.value).endswith("the payload cannot be expanded")
    with pytest.raises(TemplateError) as caught:
        expand_payload(b'{{range secret "s"}}{{end}}', GOLANG, PAYLOAD, secret=False)
    assert "hush" not in str(caught.value)


def test_contexts_do_not_show_payloads_in_their_repr() -> None:
    assert "hush" not in repr(PAYLOAD)
    assert "value" not in repr(PAYLOAD)


def test_a_payload_context_holds_file_targets_of_the_task() -> None:
    container = specs.ContainerSpec(
        env=["A=1=2", "bare"],
        secrets=[types.SecretReference(secret_id="i", secret_name="n", file=types.FileTarget(name="target"))],
        configs=[types.ConfigReference(config_id="gone", config_name="n", file=types.FileTarget(name="f"))],
    )
    task = objects.Task(spec=specs.TaskSpec(container=container))
    held = PayloadContext.of(task, None, {"i": b"data"}.get, {}.get)  # type: ignore[arg-type]
    assert (held.secrets, held.configs, held.env) == ({"target": b"data"}, {}, {"A": "1=2"})
