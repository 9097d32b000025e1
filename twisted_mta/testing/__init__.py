"""For tests, of this program and of programs that use it; public, and kept stable.

world
    `MemoryMTA`: a whole mail transfer agent on a clock that is moved by hand, with real STARTTLS.
transcript
    Dialogues in C:/S: notation, played against the pure session at every split point, against the
    protocol in memory, or over TCP.
network
    Connections in memory, on that clock, with TLS and back-pressure.
peer
    `ScriptedPeer`: a server that says what its script has it say.
delivery
    `RecordingDelivery`: takes or refuses what it is told to, at once or late.
files
    `UnsyncedFiles`: a disk that forgets what was not synced, is full, or fails on cue.
resolver
    `FakeResolver`: names and their failures from a dictionary.
store
    `MemoryStore`: a queue's store that fails on cue.
client, pure
    What the others are made of: a client's end of a connection, a session without a protocol.
"""
