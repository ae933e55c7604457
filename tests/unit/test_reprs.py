"""What is in the log (secrets, tokens, the root key) is in no repr: reprs end in errors, logs and traces."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.pki.key_file import DataKeys
from runtime.pki.unlock_key import UnlockKeyBox
from runtime.protocol.certificate import CertificateSetup
from runtime.protocol.cluster import Join, JoinRequest, Unlock
from runtime.protocol.raft import Append, BeginLog, SendRaft, SnapshotTaken, StepRaft
from runtime.protocol.store import Entries, Propose, Restore
from runtime.raft.types import Entry, EntryType, HardState, Message, MessageType, Snapshot
from runtime.store.snapshot import read
from runtime.wire.pb import snapshot_pb2
from runtime.wire.port import Credentials

SECRET = "hush-hush"
HELD = SECRET.encode()
ENTRY = Entry(1, 1, EntryType.NORMAL, HELD)
SNAPSHOT = Snapshot(1, 1, data=HELD)
HOLDS = read(snapshot_pb2.Snapshot(store={"secrets": [{"id": "s", "spec": {"data": HELD}}]}).SerializeToString())
MESSAGE = Message(MessageType.APP, 2, 1, entries=[ENTRY], snapshot=SNAPSHOT)


@pytest.mark.parametrize(
    "holder",
    [
        ENTRY,
        SNAPSHOT,
        MESSAGE,
        StepRaft(MESSAGE, False),
        SendRaft([MESSAGE], False),
        BeginLog(None, [ENTRY], HardState()),  # type: ignore[arg-type]
        Append(1, [ENTRY], HardState(), SNAPSHOT),
        SnapshotTaken(SNAPSHOT, 1),
        Propose(1, HELD),
        Entries(((1, 1, HELD),)),
        Restore(1, HOLDS.objects),
        StepRaft(MESSAGE, False, HOLDS),
        HOLDS,
        DataKeys(HELD, HELD),
        UnlockKeyBox(HELD),
        Credentials(b"roots", b"certificate", HELD),
        Unlock(SECRET),
        Join(JoinRequest("", "", "", (), "", SECRET)),
        CertificateSetup(join_token=SECRET, lock=UnlockKeyBox(HELD)),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_what_holds_a_secret_does_not_show_it(holder: Any) -> None:
    assert SECRET not in repr(holder)
    assert SECRET not in str(holder)
