-- The journal: frames, the leader's fence and lease, snapshots, the floor of retention, incarnations.
-- Owned by the role that migrates; trading_user may append and read, never alter or delete.

CREATE TABLE journal_incarnation (
    number      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incarnation uuid        NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    reason      text        NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE journal_incarnation IS
    'Names of this history; the highest number is current. A point-in-time restore adds a row.';
INSERT INTO journal_incarnation (reason) VALUES ('the first start');

-- Apart from the lease, so that a renewal never waits for an append, nor an append for a renewal.
CREATE TABLE journal_fence (
    shard integer PRIMARY KEY CHECK (shard >= 0),
    epoch bigint  NOT NULL CHECK (epoch >= 0)
);
COMMENT ON TABLE journal_fence IS
    'Epoch of the only leader that may append; every append locks its row FOR SHARE.';

CREATE TABLE journal_lease (
    shard      integer     PRIMARY KEY CHECK (shard >= 0),
    epoch      bigint      NOT NULL CHECK (epoch >= 0),
    holder     text,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE journal_lease IS 'Who leads, and until when; written together with journal_fence.';

CREATE TABLE journal_frames (
    shard          integer     NOT NULL CHECK (shard >= 0),
    first_sequence bigint      NOT NULL CHECK (first_sequence >= 1),
    last_sequence  bigint      NOT NULL,
    epoch          bigint      NOT NULL,
    time_ns        bigint      NOT NULL,
    commands       bytea       NOT NULL,
    events         bytea       NOT NULL,
    digest         bytea       NOT NULL CHECK (octet_length(digest) = 32),
    prev_hash      bytea       NOT NULL CHECK (octet_length(prev_hash) = 32),
    hash           bytea       NOT NULL CHECK (octet_length(hash) = 32),
    format_version integer     NOT NULL,
    rules_version  integer     NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, first_sequence),
    CHECK (last_sequence >= first_sequence)
) PARTITION BY RANGE (first_sequence);
COMMENT ON TABLE journal_frames IS 'One row a group commit; never updated, removed a partition at a time.';

-- TOAST compression costs a third of the append rate; out of line and as it is.
ALTER TABLE journal_frames
    ALTER COLUMN commands SET STORAGE EXTERNAL,
    ALTER COLUMN events SET STORAGE EXTERNAL;

CREATE TABLE journal_snapshots (
    shard          integer     NOT NULL CHECK (shard >= 0),
    sequence       bigint      NOT NULL CHECK (sequence >= 1),
    time_ns        bigint      NOT NULL,
    state          bytea       NOT NULL,
    state_sha256   bytea       NOT NULL CHECK (octet_length(state_sha256) = 32),
    state_hash     text        NOT NULL,
    digest         bytea       NOT NULL CHECK (octet_length(digest) = 32),
    frame_hash     bytea       NOT NULL CHECK (octet_length(frame_hash) = 32),
    format_version integer     NOT NULL,
    rules_version  integer     NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, sequence)
);
ALTER TABLE journal_snapshots ALTER COLUMN state SET STORAGE EXTERNAL;
COMMENT ON COLUMN journal_snapshots.state_sha256 IS 'Of the stored bytes; state_hash is the engine''s own.';

CREATE TABLE journal_floor (
    shard          integer PRIMARY KEY CHECK (shard >= 0),
    floor_sequence bigint  NOT NULL CHECK (floor_sequence >= 1),
    prev_hash      bytea   NOT NULL CHECK (octet_length(prev_hash) = 32)
);
COMMENT ON TABLE journal_floor IS
    'Oldest retained sequence and the hash of the frame before it; no row: nothing was archived yet. '
    'Written only by the archiver, in the transaction that drops frames, so that lost frames show.';

-- Makes the partition that holds next_sequence and the two after it, and returns the first sequence
-- that they do not cover. ATTACH, unlike CREATE ... PARTITION OF, lets appends go on meanwhile.
CREATE FUNCTION journal_ensure_partitions(next_sequence bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $body$
DECLARE
    width     constant bigint := 10000000;
    ahead     constant integer := 2;
    slot      bigint;
    partition text;
BEGIN
    IF next_sequence < 1 OR next_sequence > 9000000000000000000 THEN
        RAISE EXCEPTION 'next_sequence % is out of range', next_sequence USING ERRCODE = '22003';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('journal_ensure_partitions', 0));
    FOR slot IN next_sequence / width .. next_sequence / width + ahead LOOP
        partition := format('journal_frames_%s', lpad((slot * width)::text, 19, '0'));
        IF to_regclass('public.' || partition) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE public.%I (LIKE public.journal_frames'
                ' INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)', partition);
            EXECUTE format('REVOKE ALL ON public.%I FROM PUBLIC', partition);
            EXECUTE format(
                'ALTER TABLE public.journal_frames ATTACH PARTITION public.%I FOR VALUES FROM (%s) TO (%s)',
                partition, slot * width, (slot + 1) * width);
        END IF;
    END LOOP;
    RETURN (next_sequence / width + ahead + 1) * width;
END
$body$;

REVOKE ALL ON journal_incarnation, journal_fence, journal_lease, journal_frames, journal_snapshots, journal_floor
    FROM PUBLIC;
REVOKE ALL ON FUNCTION journal_ensure_partitions(bigint) FROM PUBLIC;

DO $body$ BEGIN PERFORM journal_ensure_partitions(1); END $body$;

DO $body$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user') THEN
        GRANT SELECT ON journal_incarnation, journal_floor TO trading_user;
        GRANT SELECT, INSERT ON journal_frames, journal_snapshots TO trading_user;
        GRANT SELECT, INSERT, UPDATE ON journal_fence, journal_lease TO trading_user;
        GRANT EXECUTE ON FUNCTION journal_ensure_partitions(bigint) TO trading_user;
    END IF;
END
$body$;
