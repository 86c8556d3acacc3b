-- depends: settlement-0001-ledger
-- What the operational runbooks ask of the database by names that PostgreSQL and the exchange's own tables do not have,
-- so that their statements run for the role admin as they are printed. docs/RUNBOOKS.md, docs/DATABASE.md.

CREATE SCHEMA runbook;
COMMENT ON SCHEMA runbook IS 'Views of pg_catalog with the column names that the runbooks use, for the role admin.';

CREATE VIEW runbook.pg_stat_user_tables AS
    SELECT s.*, s.relname AS tablename FROM pg_catalog.pg_stat_user_tables s;

CREATE VIEW runbook.pg_stat_user_indexes AS
    SELECT s.*, s.relname AS tablename, s.indexrelname AS indexname FROM pg_catalog.pg_stat_user_indexes s;

-- The newest price of each market. Market data writes it: market-data-0002-prices.sql.
CREATE TABLE latest_prices (
    symbol      text        PRIMARY KEY,
    price       numeric     NOT NULL,
    "timestamp" timestamptz NOT NULL
);

DO $$
BEGIN
    REVOKE ALL ON latest_prices FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'trading_user') THEN
        REVOKE ALL ON latest_prices FROM trading_user;
    END IF;
    -- Behind public, where what a migration makes must land (nobody else may make anything there), and ahead of
    -- pg_catalog, which is first unless it is named. An owner of another name sets it for himself.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'admin')
        AND (current_user = 'admin' OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)) THEN
        ALTER ROLE admin SET search_path = "$user", public, runbook, pg_catalog;
    END IF;
END $$;
