"""The move of a queue between a file and a database; it can be broken off anywhere.

A batch of messages goes over in three transactions, each of which takes place or does not:

1. The database reserves the messages: out of the file, they are inserted and reserved; into the
   file, those that are there are reserved. What is reserved is not delivered by any machine.
2. The file gives the messages away, or takes them, and notes their ids. This is what decides.
3. The database releases the messages, or removes them. It does so together with step 1 of the next
   batch.

A run that follows one which was broken off finishes its batch first: reserved messages that the
file has noted have gone over, and all others have not. The latter are read anew; an MTA that was
started on the file in between may have delivered them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import Factory, define

from .database import SharedDatabase, User
from .file import Direction, Pending, QueueFile
from .parcel import RECORDS, InUse, MoveRefused, Parcel, Unmovable

_RESOLVED = 1_000  # reserved messages that one transaction decides about
_RENEWAL = 6.0  # seconds in which each process that runs makes a transaction


@define
class Moved:
    """What a move did.

    Attributes:
        messages: that went over.
        recipients: of those.
        finished: messages of an earlier run, which was broken off, that went over then.
        left: why a message stayed where it was, by its id.
    """

    messages: int = 0
    recipients: int = 0
    finished: int = 0
    left: dict[int, str] = Factory(dict)


class Move:
    """Moves all messages from one side to the other.

    Args:
        file: open.
        database: open.
        token: returns a random text, which names a new move on both sides.
        progress: called after each batch with the messages that went over so far.
    """

    def __init__(
        self,
        file: QueueFile,
        database: SharedDatabase,
        *,
        token: Callable[[], str],
        progress: Callable[[int], object] = lambda messages: None,
    ) -> None:
        self._file = file
        self._database = database
        self._token = token
        self._progress = progress
        self.moved = Moved()

    def resume(self) -> None:
        """Finish the batch of an earlier run that was broken off.

        Raises:
            MoveRefused: that run moved to or from another database.
        """
        pending = self._file.pending()
        if pending is None:
            return
        known = self._file.moved()
        if self._database.find(pending.token):
            self._decide(pending, known)
            self._file.forget_moved()
            self._database.finish()
        elif known:
            # Its row is removed only after `forget_moved`: so it is in another database.
            option = "--to" if pending.direction == "out" else "--from"
            raise MoveRefused(
                f"a move {option} {pending.place} was interrupted: finish it by that command first"
            )
        self._file.finish()

    def _decide(self, pending: Pending, known: Sequence[int]) -> None:
        gone_over = dict.fromkeys(known)
        reserved = self._database.reserved()
        yes = [id for id in reserved if id in gone_over]
        no = [id for id in reserved if id not in gone_over]
        kept, dropped = (yes, no) if pending.direction == "out" else (no, yes)
        for ids in _slices(kept):
            self._database.release(ids)
        for ids in _slices(dropped):
            self._database.drop(ids)
        self.moved.finished += len(yes)

    def out(self) -> None:
        """Move from the file to the database."""
        self._begin("out")
        after, before = -1, list[int]()
        while parcels := self._file.read(after):
            after = parcels[-1].id
            refused = self._database.insert(parcels, before)
            self.moved.left.update(refused)
            parcels = [each for each in parcels if each.id not in refused]
            self._file.give(parcels)
            before = [each.id for each in parcels]
            self._count(parcels)
        self._database.release(before)
        self._move_records(self._file, self._database)
        self._finish()

    def back(self) -> None:
        """Move from the database to the file."""
        self._begin("in")
        after, before = -1, list[int]()
        while parcels := self._database.take(after, before):
            after = parcels[-1].id
            taken = self._file.taken(parcels)
            refused = {
                each.id: "another message has its id, or a body file of that name, there"
                for each in parcels
                if each.id in taken
            }
            for parcel in parcels:
                if parcel.is_large and parcel.id not in taken:
                    try:
                        self._file.write_body(parcel)
                    except Unmovable as error:
                        refused[parcel.id] = str(error)
            self.moved.left.update(refused)
            parcels = [each for each in parcels if each.id not in refused]
            self._file.take(parcels)
            before = [each.id for each in parcels]
            self._database.release(list(refused))
            self._count(parcels)
        self._move_records(self._database, self._file)
        self._finish()

    def _begin(self, direction: Direction) -> None:
        pending = Pending(self._token(), direction, self._database.place)
        self._file.begin(pending)
        self._database.begin(pending.token)

    def _finish(self) -> None:
        self._file.forget_moved()
        self._database.finish()
        self._file.finish()

    def _count(self, parcels: Sequence[Parcel]) -> None:
        self.moved.messages += len(parcels)
        self.moved.recipients += sum(len(each.recipients) for each in parcels)
        self._progress(self.moved.messages)

    @staticmethod
    def _move_records(
        source: QueueFile | SharedDatabase, target: QueueFile | SharedDatabase
    ) -> None:
        """Move what is no message: it does no harm if both sides have it for a while."""
        for table in RECORDS:
            while rows := source.records(table):
                target.add_records(table, rows)
                source.remove_records(table, rows)


def _slices(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), _RESOLVED):
        yield ids[start : start + _RESOLVED]


def wait_for_rest(database: SharedDatabase, machine: str, wait: Callable[[float], object]) -> None:
    """Wait until no process of another machine has leases.

    Args:
        database: that they use.
        machine: the id of this machine, whose processes do not run.
        wait: waits for so many seconds.

    Raises:
        InUse: one goes on.
    """

    def others() -> dict[tuple[str, int], User]:
        users = database.users()
        return {(each.machine, each.slot): each for each in users if each.machine != machine}

    waited = 0.0
    before = others()
    while before:
        wait(_RENEWAL)
        waited += _RENEWAL
        now = others()
        running = [name for name, user in now.items() if user.age < min(_RENEWAL, waited)]
        if running:
            names = ", ".join(sorted(name for name, _ in running))
            raise InUse(f"in use by the machines {names}: stop their MTAs, and repeat the command")
        before = now
    database.end_users(machine)
