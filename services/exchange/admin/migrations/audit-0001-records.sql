-- depends: auth-0001-identity

-- The audit trail: one chain of records, appended by one function, altered and removed by nobody. docs/AUDIT.md.
-- Owned by the role that migrates. trading_user and auth_user may call the function; audit_user, the admin service, reads.

CREATE TABLE audit_records (
    sequence    bigint      PRIMARY KEY CHECK (sequence >= 1),
    record_id   uuid        NOT NULL UNIQUE,
    record_time timestamptz NOT NULL,
    store_time  timestamptz NOT NULL,
    writer_role text        NOT NULL,
    phase       text        NOT NULL CHECK (phase IN ('BEGUN', 'ENDED', 'HAPPENED')),
    service     text        NOT NULL CHECK (octet_length(service) <= 128),
    instance    text        NOT NULL CHECK (octet_length(instance) <= 128),
    action      text        NOT NULL CHECK (octet_length(action) <= 256),
    actor       text        NOT NULL CHECK (octet_length(actor) <= 256),
    credential  text        NOT NULL CHECK (octet_length(credential) <= 512),
    address     text        NOT NULL CHECK (octet_length(address) <= 128),
    details     text        NOT NULL CHECK (octet_length(details) <= 16384),
    reason      text        NOT NULL CHECK (octet_length(reason) <= 2048),
    request_id  text        NOT NULL CHECK (octet_length(request_id) <= 128),
    outcome     text        NOT NULL CHECK (octet_length(outcome) <= 128),
    prev_hash   bytea       NOT NULL CHECK (octet_length(prev_hash) = 32),
    hash        bytea       NOT NULL CHECK (octet_length(hash) = 32)
);
COMMENT ON TABLE audit_records IS 'Append-only; each hash covers the one before. audit_append() is the only way in.';
COMMENT ON COLUMN audit_records.record_id IS 'Given by the writer: a record that is written again after a lost answer stands once.';
COMMENT ON COLUMN audit_records.record_time IS 'When it was so, by the writer''s clock; store_time is the database''s.';
COMMENT ON COLUMN audit_records.writer_role IS 'As which role the writer had signed in.';

CREATE INDEX audit_records_actor ON audit_records (actor, sequence);
CREATE INDEX audit_records_action ON audit_records (action, sequence);
CREATE INDEX audit_records_request ON audit_records (request_id, sequence);
CREATE INDEX audit_records_time ON audit_records (record_time, sequence);

-- The same bytes as runtime/audit/hashing.py: texts and the id with their length in four bytes before them, numbers in
-- eight, the hash before in front of all.
CREATE FUNCTION audit_text(value text) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $body$ SELECT int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8') $body$;

CREATE FUNCTION audit_micros(moment timestamptz) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $body$ SELECT int8send((extract(epoch FROM moment) * 1000000)::bigint) $body$;

CREATE FUNCTION audit_hash(r audit_records) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, public, pg_temp
AS $body$
    SELECT sha256(
        audit_text('PINCEX-AUDIT-1') || r.prev_hash || int8send(r.sequence) || audit_text(r.record_id::text)
        || audit_micros(r.record_time) || audit_micros(r.store_time) || audit_text(r.writer_role) || audit_text(r.phase)
        || audit_text(r.service) || audit_text(r.instance) || audit_text(r.action) || audit_text(r.actor)
        || audit_text(r.credential) || audit_text(r.address) || audit_text(r.details) || audit_text(r.reason)
        || audit_text(r.request_id) || audit_text(r.outcome))
$body$;

-- Appends a record and returns its number and hash. A record_id that is there already makes no second record.
-- The lock is held until the commit, so that numbers have no gap and no record is hashed onto one that is rolled back.
-- READ COMMITTED, the default, is needed: a transaction with an older view fails at the primary key.
CREATE FUNCTION audit_append(
    record_id uuid, record_time timestamptz, phase text, service text, instance text, action text, actor text,
    credential text, address text, details text, reason text, request_id text, outcome text,
    OUT stored_sequence bigint, OUT stored_hash bytea
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $body$
DECLARE
    head  public.audit_records;
    entry public.audit_records;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('pincex.audit_records', 0));
    SELECT * INTO entry FROM public.audit_records known WHERE known.record_id = audit_append.record_id;
    IF FOUND THEN
        -- Its first commit may have been cut off while it waited for the standby. This makes ours wait for it in its place:
        -- a transaction that writes nothing would not.
        PERFORM pg_logical_emit_message(true, 'pincex.audit', '');
    ELSE
        SELECT * INTO head FROM public.audit_records newest ORDER BY newest.sequence DESC LIMIT 1;
        entry.sequence := coalesce(head.sequence, 0) + 1;
        entry.record_id := audit_append.record_id;
        entry.record_time := audit_append.record_time;
        entry.store_time := clock_timestamp();
        entry.writer_role := session_user;
        entry.phase := audit_append.phase;
        entry.service := audit_append.service;
        entry.instance := audit_append.instance;
        entry.action := audit_append.action;
        entry.actor := audit_append.actor;
        entry.credential := audit_append.credential;
        entry.address := audit_append.address;
        entry.details := audit_append.details;
        entry.reason := audit_append.reason;
        entry.request_id := audit_append.request_id;
        entry.outcome := audit_append.outcome;
        entry.prev_hash := coalesce(head.hash, decode(repeat('00', 32), 'hex'));
        entry.hash := public.audit_hash(entry);
        INSERT INTO public.audit_records SELECT (entry).*;
    END IF;
    stored_sequence := entry.sequence;
    stored_hash := entry.hash;
END
$body$;

-- Privileges alone do not bind the owner; who alters the trail has to take these away first.
CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    RAISE EXCEPTION 'audit_records is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$body$;
CREATE TRIGGER audit_records_rows_stay BEFORE UPDATE OR DELETE ON audit_records
    FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER audit_records_stay BEFORE TRUNCATE ON audit_records
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
-- ALWAYS: also where session_replication_role is set to replica.
ALTER TABLE audit_records ENABLE ALWAYS TRIGGER audit_records_rows_stay;
ALTER TABLE audit_records ENABLE ALWAYS TRIGGER audit_records_stay;

-- Default privileges gave trading_user all of it, and PUBLIC the functions.
DO $body$
DECLARE
    appending constant text := 'audit_append(uuid, timestamptz, text, text, text, text, text, text, text, text, text, '
        'text, text)';
    writer text;
BEGIN
    REVOKE ALL ON audit_records FROM PUBLIC;
    REVOKE ALL ON FUNCTION audit_text(text), audit_micros(timestamptz), audit_hash(audit_records), audit_refuse_change()
        FROM PUBLIC;
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', appending);
    FOREACH writer IN ARRAY ARRAY['trading_user', 'auth_user'] LOOP
        IF EXISTS (SELECT FROM pg_roles WHERE rolname = writer) THEN
            EXECUTE format('REVOKE ALL ON audit_records FROM %I', writer);
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', appending, writer);
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'audit_user') THEN
        GRANT SELECT ON audit_records TO audit_user;
        -- As every server that verifies tokens.
        GRANT SELECT ON auth_revocations TO audit_user;
        GRANT SELECT (key_id, public_jwk, created_at, signs_from, retired_at) ON auth_signing_keys TO audit_user;
    END IF;
END
$body$;
