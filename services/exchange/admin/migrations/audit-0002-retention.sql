-- depends: audit-0001-records

-- Old audit records may be pruned, by one function and no sooner than after 30 days. The chain stays provable: the number and
-- the hash of the last record that went are kept as its anchor, and the pruning is a record of the chain itself.
-- docs/AUDIT.md.

CREATE TABLE audit_anchor (
    only_row        boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    sequence        bigint      NOT NULL CHECK (sequence >= 1),
    hash            bytea       NOT NULL CHECK (octet_length(hash) = 32),
    pruned_at       timestamptz NOT NULL,
    record_sequence bigint      NOT NULL CHECK (record_sequence > sequence)
);
COMMENT ON TABLE audit_anchor IS 'The last record that was pruned: the first that is kept follows it. No row: none was.';
COMMENT ON COLUMN audit_anchor.record_sequence IS 'Of the audit.pruned record that tells of it.';

-- The anchor moves forward only, to a record that is there and older than anything that must be kept: also where the owner
-- writes it by hand.
CREATE FUNCTION audit_check_anchor() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp
AS $body$
BEGIN
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        IF TG_OP = 'UPDATE' THEN
            IF NEW.sequence <= OLD.sequence THEN
                RAISE EXCEPTION 'audit_anchor moves forward only' USING ERRCODE = 'insufficient_privilege';
            END IF;
        END IF;
        IF EXISTS (SELECT FROM public.audit_records r WHERE r.sequence = NEW.sequence AND r.hash = NEW.hash
                AND r.store_time < clock_timestamp() - interval '30 days') THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'audit_anchor is kept: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$body$;
CREATE TRIGGER audit_anchor_moves_forward BEFORE INSERT OR UPDATE OR DELETE ON audit_anchor
    FOR EACH ROW EXECUTE FUNCTION audit_check_anchor();
CREATE TRIGGER audit_anchor_stays BEFORE TRUNCATE ON audit_anchor
    FOR EACH STATEMENT EXECUTE FUNCTION audit_check_anchor();
ALTER TABLE audit_anchor ENABLE ALWAYS TRIGGER audit_anchor_moves_forward;
ALTER TABLE audit_anchor ENABLE ALWAYS TRIGGER audit_anchor_stays;

-- As before, but for records up to the anchor.
CREATE OR REPLACE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (SELECT FROM public.audit_anchor a WHERE a.sequence >= OLD.sequence) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'audit_records is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$body$;

-- Removes at most `most` of the oldest records, those stored before `before`, and returns how many. The newest record always
-- stays: the next one is hashed onto it. Records are appended under the same lock.
CREATE FUNCTION audit_prune(before timestamptz, most integer, service text, instance text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $body$
DECLARE
    cut     public.audit_records;
    told    bigint;
    removed bigint;
BEGIN
    IF before IS NULL OR before > clock_timestamp() - interval '30 days' THEN
        RAISE EXCEPTION 'audit records are kept for 30 days at least' USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('pincex.audit_records', 0));
    SELECT r.* INTO cut
    FROM (SELECT oldest.sequence, bool_and(oldest.store_time < before) OVER (ORDER BY oldest.sequence) AS goes
          FROM (SELECT a.sequence, a.store_time FROM public.audit_records a ORDER BY a.sequence LIMIT greatest(most, 0)) oldest) x
    JOIN public.audit_records r USING (sequence)
    WHERE x.goes AND r.sequence < (SELECT max(newest.sequence) FROM public.audit_records newest)
    ORDER BY r.sequence DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    SELECT a.stored_sequence INTO told FROM public.audit_append(
        gen_random_uuid(), clock_timestamp(), 'HAPPENED', audit_prune.service, audit_prune.instance, 'audit.pruned', 'system',
        'system', '', format('{"through":%s,"hash":"%s"}', cut.sequence, encode(cut.hash, 'hex')), '', '', 'OK') a;
    INSERT INTO public.audit_anchor AS a (sequence, hash, pruned_at, record_sequence)
    VALUES (cut.sequence, cut.hash, clock_timestamp(), told)
    ON CONFLICT (only_row) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash,
        pruned_at = excluded.pruned_at, record_sequence = excluded.record_sequence;
    DELETE FROM public.audit_records r WHERE r.sequence <= cut.sequence;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END
$body$;

-- Default privileges gave trading_user the table, and PUBLIC the functions.
DO $body$
BEGIN
    REVOKE ALL ON audit_anchor FROM PUBLIC;
    REVOKE ALL ON FUNCTION audit_check_anchor(), audit_prune(timestamptz, integer, text, text) FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user') THEN
        REVOKE ALL ON audit_anchor FROM trading_user;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'audit_user') THEN
        GRANT SELECT ON audit_anchor TO audit_user;
        GRANT EXECUTE ON FUNCTION audit_prune(timestamptz, integer, text, text) TO audit_user;
    END IF;
END
$body$;
