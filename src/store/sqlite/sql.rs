//! All SQL of the store, and the statements that a connection keeps prepared.

use rusqlite::{Connection, PrepFlags, Statement};

/// Marks a database as one of ours: `rasy`.
pub(super) const APPLICATION_ID: i64 = 0x7261_7379;
/// The form of the tables that this version knows; `MIGRATIONS` leads to it.
pub(super) const VERSION: u32 = 1;

/// Step by step from an empty database to the present form. A step that was released never changes.
pub(super) const MIGRATIONS: [&str; VERSION as usize] = ["
    -- What polls read. The record tells all; the other columns are what is looked for, as the record
    -- gives it.
    CREATE TABLE operations (
        row INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
        kind TEXT NOT NULL,
        owner TEXT,
        status TEXT NOT NULL,
        version INTEGER NOT NULL,
        write_id INTEGER NOT NULL,
        claim_at_ms INTEGER,
        settle_at_ms INTEGER,
        expire_at_ms INTEGER,
        record BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX operations_by_id ON operations (id);
    CREATE INDEX operations_by_owner ON operations (owner, id) WHERE owner IS NOT NULL;
    CREATE INDEX operations_to_claim ON operations (kind, claim_at_ms, id, settle_at_ms)
        WHERE claim_at_ms IS NOT NULL;
    CREATE INDEX operations_to_settle ON operations (settle_at_ms, id)
        WHERE settle_at_ms IS NOT NULL;
    CREATE INDEX operations_to_expire ON operations (expire_at_ms, id)
        WHERE expire_at_ms IS NOT NULL;

    -- What only workers and readers of results want.
    CREATE TABLE inputs (row INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE outcomes (row INTEGER PRIMARY KEY, head BLOB NOT NULL, body BLOB NOT NULL) STRICT;

    -- The anonymous owner is the empty text, which no name is.
    CREATE TABLE keys (
        owner TEXT NOT NULL,
        scope TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        row INTEGER NOT NULL,
        PRIMARY KEY (owner, scope, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX keys_by_row ON keys (row);

    -- How many unfinished operations an owner has; all together, under the empty text.
    CREATE TABLE live (owner TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"];

macro_rules! statements {
    ($(#[$doc:meta])* $set:ident { $($name:ident = $sql:literal;)* }) => {
        $(#[$doc])*
        pub(super) struct $set<'a> {
            $(pub(super) $name: Statement<'a>,)*
        }

        impl<'a> $set<'a> {
            pub(super) fn prepare(connection: &'a Connection) -> rusqlite::Result<Self> {
                // Kept for long: without the flag they take the small memory of the connection (its lookaside), which
                // each call then does without.
                let persistent = PrepFlags::SQLITE_PREPARE_PERSISTENT;
                Ok(Self { $($name: connection.prepare_with_flags($sql, persistent)?,)* })
            }
        }
    };
}

statements! {
    /// What the readers ask. Each is a transaction of its own.
    Reads {
        get = "SELECT record, write_id FROM operations WHERE id = ?1";
        input = "SELECT record, body FROM operations JOIN inputs USING (row) WHERE id = ?1";
        outcome = "SELECT record, head, body FROM operations JOIN outcomes USING (row) WHERE id = ?1";
        next_kind = "SELECT min(kind) FROM operations WHERE claim_at_ms IS NOT NULL AND kind > ?1";
        to_claim = "SELECT record, write_id FROM operations
            WHERE claim_at_ms <= ?1 AND kind = ?2 AND (settle_at_ms IS NULL OR settle_at_ms > ?1)
            ORDER BY claim_at_ms, id";
        to_settle = "SELECT record, write_id FROM operations
            WHERE settle_at_ms <= ?1 ORDER BY settle_at_ms, id";
        to_expire = "SELECT record, write_id FROM operations
            WHERE expire_at_ms <= ?1 ORDER BY expire_at_ms, id";
        any_expired = "SELECT 1 FROM operations WHERE expire_at_ms <= ?1 LIMIT 1";
        list = "SELECT id, expire_at_ms, record FROM operations
            WHERE owner = ?1 AND id < ?2 ORDER BY id DESC";
    }
}

statements! {
    /// What the writer says, within a transaction.
    Writes {
        find = "SELECT row, version, expire_at_ms, owner FROM operations WHERE id = ?1";
        read = "SELECT record, write_id FROM operations WHERE row = ?1";
        key = "SELECT operations.row, fingerprint, expire_at_ms, operations.owner
            FROM keys JOIN operations USING (row)
            WHERE keys.owner = ?1 AND scope = ?2 AND key = ?3";
        live = "SELECT count FROM live WHERE owner = ?1";
        insert = "INSERT INTO operations (id, kind, owner, status, version, write_id, claim_at_ms,
            settle_at_ms, expire_at_ms, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
            ON CONFLICT (id) DO NOTHING";
        update = "UPDATE operations SET status = ?2, version = ?3, write_id = ?4, claim_at_ms = ?5,
            settle_at_ms = ?6, expire_at_ms = ?7, record = ?8 WHERE row = ?1";
        insert_input = "INSERT INTO inputs (row, body) VALUES (?1, ?2)";
        insert_outcome = "INSERT OR REPLACE INTO outcomes (row, head, body) VALUES (?1, ?2, ?3)";
        insert_key = "INSERT INTO keys (owner, scope, key, fingerprint, row)
            VALUES (?1, ?2, ?3, ?4, ?5)";
        add_live = "INSERT INTO live (owner, count) VALUES (?1, ?2)
            ON CONFLICT (owner) DO UPDATE SET count = count + excluded.count";
        drop_live = "DELETE FROM live WHERE owner = ?1 AND count <= 0";
        delete = "DELETE FROM operations WHERE row = ?1";
        delete_input = "DELETE FROM inputs WHERE row = ?1";
        delete_outcome = "DELETE FROM outcomes WHERE row = ?1";
        delete_key = "DELETE FROM keys WHERE row = ?1";
        expired = "SELECT row FROM operations WHERE expire_at_ms <= ?1
            ORDER BY expire_at_ms, id LIMIT ?2";
        data_version = "PRAGMA data_version";
        free_bytes = "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size";
    }
}

/// Whose database it is: what it calls itself, and how many tables and indices it has.
pub(super) const WHOSE: &str =
    "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)
    FROM pragma_application_id, pragma_user_version";
/// Fails at once where nothing may be changed.
pub(super) const CHANGE_NOTHING: &str = "DELETE FROM live WHERE 0";
/// Changes with each commit of another connection.
pub(super) const DATA_VERSION: &str = "data_version";
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";
pub(super) const COMMIT: &str = "COMMIT";
pub(super) const ROLLBACK: &str = "ROLLBACK";
pub(super) const EMPTY_LOG: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
