-- depends: journal-0002-lease-address

-- The first migration meant trading_user to append to the journal and to read it. Where the stack had made the database, default
-- privileges gave it more before: to update and delete in every table of the journal, and in the list of migrations, and to
-- use all sequences. Those defaults are gone (stack/postgresql/roles.py); this takes back what they have given.

DO $body$
DECLARE
    object record;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user') THEN
        RETURN;
    END IF;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM trading_user;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON SEQUENCES FROM trading_user;
    FOR object IN
        SELECT c.relname, c.relkind FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND pg_get_userbyid(c.relowner) = current_user
            AND (c.relkind = 'S' OR (c.relkind IN ('r', 'p') AND (c.relname LIKE 'journal\_%' OR c.relname LIKE '%yoyo\_%')))
    LOOP
        EXECUTE format('REVOKE ALL ON %s public.%I FROM trading_user',
            CASE object.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, object.relname);
    END LOOP;
    GRANT SELECT ON journal_incarnation, journal_floor TO trading_user;
    GRANT SELECT, INSERT ON journal_frames, journal_snapshots TO trading_user;
    GRANT SELECT, INSERT, UPDATE ON journal_fence, journal_lease TO trading_user;
END
$body$;
