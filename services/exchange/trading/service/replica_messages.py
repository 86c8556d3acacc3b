"""Messages of the link between replicas, from and to their form on the wire."""

from __future__ import annotations

from exchange.trading.journal.contract import Frame
from exchange.trading.replication import messages as m
from pincex.journal.v1 import replica_service_pb2 as pb


def follower_message(batch: m.FollowerBatch) -> pb.FollowerMessage:
    """What a follower says."""
    message = pb.FollowerMessage(
        ping=batch.ping,
        sequence=batch.sequence,
        compare=batch.compare,
        compare_symbol=batch.compare_symbol,
        submissions=[pb.Submission(id=one.id, commands=one.commands) for one in batch.submissions],
        attendances=[_attendance_message(one) for one in batch.attendances],
        reports=[
            pb.StateReport(id=one.id, state_hash=one.state_hash, book_hash=one.book_hash) for one in batch.reports
        ],
    )
    if batch.hello is not None:
        hello = batch.hello
        message.hello.CopyFrom(
            pb.FollowerHello(
                replica=_replica_message(hello.replica),
                epoch=hello.epoch,
                from_sequence=hello.from_sequence,
                frame_hash=hello.frame_hash,
                attendances=[_attendance_message(one) for one in hello.attendances],
            )
        )
    return message


def follower_batch(message: pb.FollowerMessage) -> m.FollowerBatch:
    """What a follower has said."""
    batch = m.FollowerBatch(
        submissions=[m.Submission(one.id, one.commands) for one in message.submissions],
        attendances=[_attendance(one) for one in message.attendances],
        ping=message.ping,
        sequence=message.sequence,
        reports=[m.StateReport(one.id, one.state_hash, one.book_hash) for one in message.reports],
        compare=message.compare,
        compare_symbol=message.compare_symbol,
    )
    if message.HasField("hello"):
        hello = message.hello
        batch.hello = m.FollowerHello(
            _replica(hello.replica),
            hello.epoch,
            hello.from_sequence,
            hello.frame_hash,
            tuple(_attendance(one) for one in hello.attendances),
        )
    return batch


def leader_message(batch: m.LeaderBatch) -> pb.LeaderMessage:
    """What a leader says."""
    message = pb.LeaderMessage(
        state_requests=[
            pb.StateRequest(id=one.id, sequence=one.sequence, symbol=one.symbol) for one in batch.state_requests
        ],
        frames=[_frame_message(frame) for frame in batch.frames],
        outcomes=[
            pb.SubmissionOutcome(
                id=one.id,
                status=int(one.status),  # type: ignore[arg-type]
                results=one.results,
                sequence=one.sequence,
            )
            for one in batch.outcomes
        ],
        pong=batch.pong,
        head_sequence=batch.head_sequence,
        queue_depth=batch.queue_depth,
        replicas=[_replica_message(one) for one in batch.replicas],
        comparisons=[_comparison_message(one) for one in batch.comparisons],
        hand_over=batch.hand_over,
    )
    if batch.hello is not None:
        hello = batch.hello
        message.hello.CopyFrom(
            pb.LeaderHello(instance=hello.instance, epoch=hello.epoch, first_sequence=hello.first_sequence)
        )
    return message


def leader_batch(message: pb.LeaderMessage) -> m.LeaderBatch:
    """What a leader has said."""
    batch = m.LeaderBatch(
        state_requests=[m.StateRequest(one.id, one.sequence, one.symbol) for one in message.state_requests],
        frames=[_frame(frame) for frame in message.frames],
        outcomes=[m.Outcome(one.id, m.Status(one.status), one.results, one.sequence) for one in message.outcomes],
        pong=message.pong,
        head_sequence=message.head_sequence,
        queue_depth=message.queue_depth,
        replicas=[_replica(one) for one in message.replicas],
        comparisons=[_comparison(one) for one in message.comparisons],
        hand_over=message.hand_over,
    )
    if message.HasField("hello"):
        hello = message.hello
        batch.hello = m.LeaderHello(hello.instance, hello.epoch, hello.first_sequence)
    return batch


def _attendance_message(one: m.Attendance) -> pb.SessionAttendance:
    return pb.SessionAttendance(account=one.account, session=one.session, attended=one.attended)


def _attendance(one: pb.SessionAttendance) -> m.Attendance:
    return m.Attendance(one.account, one.session, one.attended)


def _replica_message(one: m.ReplicaInfo) -> pb.Replica:
    return pb.Replica(
        instance=one.instance,
        role=one.role,
        ops_address=one.ops_address,
        metrics_url=one.metrics_url,
        version=one.version,
        core_mode=one.core_mode,
        supported_rules_version=one.supported_rules_version,
        sequence=one.sequence,
    )


def _replica(one: pb.Replica) -> m.ReplicaInfo:
    return m.ReplicaInfo(
        one.instance,
        one.role,
        one.ops_address,
        one.metrics_url,
        one.version,
        one.core_mode,
        one.supported_rules_version,
        one.sequence,
    )


def _comparison_message(one: m.Comparison) -> pb.Comparison:
    states = [
        pb.ReplicaState(replica=_replica_message(state.replica), state_hash=state.state_hash, book_hash=state.book_hash)
        for state in one.states
    ]
    return pb.Comparison(id=one.id, sequence=one.sequence, states=states)


def _comparison(one: pb.Comparison) -> m.Comparison:
    states = (m.ReplicaState(_replica(state.replica), state.state_hash, state.book_hash) for state in one.states)
    return m.Comparison(one.id, one.sequence, tuple(states))


def _frame_message(frame: Frame) -> pb.Frame:
    return pb.Frame(
        shard=frame.shard,
        first_sequence=frame.first_sequence,
        last_sequence=frame.last_sequence,
        epoch=frame.epoch,
        time_ns=frame.time_ns,
        commands=frame.commands,
        events=frame.events,
        digest=frame.digest,
        prev_hash=frame.prev_hash,
        hash=frame.hash,
        format_version=frame.format_version,
        rules_version=frame.rules_version,
    )


def _frame(one: pb.Frame) -> Frame:
    return Frame(
        one.shard,
        one.first_sequence,
        one.last_sequence,
        one.epoch,
        one.time_ns,
        one.commands,
        one.events,
        one.digest,
        one.prev_hash,
        one.hash,
        one.format_version,
        one.rules_version,
    )
