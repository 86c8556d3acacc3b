-- depends: wallet-0002-withdrawals

-- The index of what an account has sent holds what its pages show, as that of what it has received. While it held all, and
-- until the table had been analysed for the first time, PostgreSQL took it for the look-up of one request id as well, and read
-- every transfer of the account.
CREATE INDEX wallet_transfers_sent ON wallet_transfers (account, number DESC) WHERE status = 'DONE';
DROP INDEX wallet_transfers_account;
