//! All SQL of the store.
//!
//! Whoever writes locks in one order, so that nobody waits in a circle: keys and operations, then the
//! counts of owners by their names, then one part of the count of all. (But for the keys of what follows from an end,
//! which come after the owners: this crate's own have none.) What PostgreSQL does last of a
//! statement (`WITH`) stands first in its text.
//!
//! Owners with a name of this crate's own are not counted (`{counts}`), nor are those without one: they have no limit,
//! and what follows from everybody's operations has such an owner, whose count all would wait for. What an earlier
//! version counted of them nobody reads.

use std::ops::Range;

use tokio_postgres::types::Type;

use crate::operation::Owner;

/// The form of the tables that this version knows; `MIGRATIONS` leads to it.
pub(super) const VERSION: usize = 1;

/// Stands for the schema in every text here.
const SCHEMA: &str = "{s}";

/// Step by step from nothing to the present form. A step that was released never changes.
const MIGRATIONS: [&str; VERSION] = ["
    CREATE SCHEMA IF NOT EXISTS {s};

    -- What polls read. The record tells all; the other columns are what is looked for, as the record
    -- gives it. A fifth of each page is left free, so that a report of progress, which changes no
    -- indexed column, finds room on the page of its row and touches no index.
    CREATE TABLE {s}.operations (
        id uuid PRIMARY KEY,
        kind text NOT NULL,
        owner text,
        status text NOT NULL,
        version int8 NOT NULL,
        write_id int8 NOT NULL,
        claim_at_ms int8,
        settle_at_ms int8,
        expire_at_ms int8,
        record bytea NOT NULL
    ) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.05);
    -- Each index holds only the rows that its question is about, so none grows with what is finished
    -- but the one for purges.
    CREATE INDEX operations_by_owner ON {s}.operations (owner, id) WHERE owner IS NOT NULL;
    CREATE INDEX operations_to_claim ON {s}.operations (kind, claim_at_ms, id)
        WHERE claim_at_ms IS NOT NULL;
    CREATE INDEX operations_to_settle ON {s}.operations (settle_at_ms, id)
        WHERE settle_at_ms IS NOT NULL;
    CREATE INDEX operations_to_expire ON {s}.operations (expire_at_ms, id)
        WHERE expire_at_ms IS NOT NULL;

    -- What only workers and readers of results want. Bodies are kept as they are: most that are large
    -- are compressed already.
    CREATE TABLE {s}.inputs (id uuid PRIMARY KEY, body bytea NOT NULL)
        WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
    ALTER TABLE {s}.inputs ALTER COLUMN body SET STORAGE EXTERNAL;
    CREATE TABLE {s}.outcomes (id uuid PRIMARY KEY, head bytea NOT NULL, body bytea NOT NULL)
        WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
    ALTER TABLE {s}.outcomes ALTER COLUMN body SET STORAGE EXTERNAL;

    -- The anonymous owner is the empty text, which no name is. A scope may be any text of any length,
    -- so its digest stands for it.
    CREATE TABLE {s}.keys (
        owner text NOT NULL,
        scope bytea NOT NULL,
        key text NOT NULL,
        fingerprint bytea NOT NULL,
        id uuid NOT NULL,
        PRIMARY KEY (owner, scope, key)
    );
    CREATE INDEX keys_by_id ON {s}.keys (id);

    -- How many unfinished operations an owner has; all together, under the empty text, in so many parts
    -- that connections need not wait for each other to count.
    CREATE TABLE {s}.live (
        owner text NOT NULL,
        part int2 NOT NULL,
        count int8 NOT NULL,
        PRIMARY KEY (owner, part)
    ) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
"];

/// In how many parts all live operations are counted by connections that commit with each statement.
pub(super) const PARTS: i16 = 16;
/// The parts of those that hold theirs for several statements, which no other waits for. The ones between
/// are of processes of an earlier version.
pub(super) const STEP_PARTS: Range<i16> = 32..48;
/// The parts of callers' transactions, which hold theirs until they commit.
pub(super) const FOREIGN_PARTS: Range<i16> = 256..512;

/// The schema's name as it stands in a statement.
pub(super) fn quoted(schema: &str) -> String {
    format!("\"{}\"", schema.replace('"', "\"\""))
}

/// The steps from that version on, each with what notes that it was taken.
pub(super) fn migrations(schema: &str, from: usize) -> Vec<String> {
    let steps = MIGRATIONS.iter().enumerate().skip(from);
    let texts = steps.map(|(at, step)| {
        let noted = if at == 0 {
            "    CREATE TABLE {s}.schema_version (version int4 NOT NULL);
    INSERT INTO {s}.schema_version VALUES (1);\n"
                .to_owned()
        } else {
            format!("    UPDATE {{s}}.schema_version SET version = {};\n", at + 1)
        };
        format!("{step}{noted}").replace(SCHEMA, &quoted(schema))
    });
    texts.collect()
}

/// Stands for how many rows are wanted. A number that is no parameter: not knowing it, the planner expects
/// a tenth of the table, and sorts that in place of reading a few rows by an index.
pub(super) const LIMIT: &str = "{limit}";

/// A statement: its text, and the types of its parameters.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) name: &'static str,
    pub(super) sql: String,
    pub(super) types: &'static [Type],
}

macro_rules! statements {
    ($($name:ident($($type:ident),*) = $sql:expr;)*) => {
        /// What is said to the tables of one schema.
        #[derive(Debug)]
        pub(super) struct Sql {
            $(pub(super) $name: Text,)*
        }

        impl Sql {
            pub(super) fn of(schema: &str) -> Self {
                let schema = quoted(schema);
                let counts = format!("owner NOT LIKE '{}%'", Owner::RESERVED);
                Self { $($name: Text {
                    name: stringify!($name),
                    sql: $sql
                        .replace(SCHEMA, &schema)
                        .replace("{now}", NOW)
                        .replace("{counts}", &counts),
                    types: &[$(Type::$type),*],
                },)* }
            }
        }
    };
}

/// The server's clock as the statement begins, in milliseconds since 1970. Within a statement it stands
/// still, so that an index can be asked by it.
const NOW: &str = "floor(extract(epoch FROM statement_timestamp()) * 1000)::int8";

/// Accepts a group: in one step the keys, the operations that got theirs, their inputs, and the counts.
///
/// Keys are taken in their order, then operations in that of their ids, so that two groups that have
/// some in common wait for each other and not in a circle. A row is left out if its key is taken or
/// there is no room for it; an id that is in use fails the group.
const ACCEPT: &str = "
WITH new AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::int8[], $6::int8[],
        $7::int8[], $8::int8[], $9::bytea[], $10::bytea[], $11::bytea[], $12::text[], $13::bytea[],
        $14::int8[], $15::int8[])
    WITH ORDINALITY AS n (id, kind, owner, status, version, claim_at_ms, settle_at_ms, expire_at_ms,
        record, input, scope, key, fingerprint, total_limit, owner_limit, place)
), owned AS (
    SELECT owner, count FROM {s}.live
    WHERE part = 0 AND owner IN (SELECT owner FROM new WHERE owner_limit IS NOT NULL)
), judged AS MATERIALIZED (
    SELECT n.*,
        coalesce(n.total_limit < n.place + $16 + counted.count, false) AS over_total,
        coalesce(n.owner IS NOT NULL AND n.owner_limit < coalesce(o.count, 0)
            + row_number() OVER (PARTITION BY n.owner ORDER BY n.place), false) AS over_owner
    FROM new n
    CROSS JOIN (SELECT coalesce(sum(count), 0) AS count FROM {s}.live WHERE owner = '') counted
    LEFT JOIN owned o ON o.owner = n.owner
), taken AS (
    INSERT INTO {s}.keys (owner, scope, key, fingerprint, id)
    SELECT coalesce(owner, ''), sha256(scope), key, fingerprint, id FROM judged
    WHERE key IS NOT NULL AND NOT over_total AND NOT over_owner ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING RETURNING id
), inserted AS (
    INSERT INTO {s}.operations (id, kind, owner, status, version, write_id, claim_at_ms, settle_at_ms,
        expire_at_ms, record)
    SELECT id, kind, owner, status, version, 0, claim_at_ms, settle_at_ms, expire_at_ms, record
    FROM judged WHERE NOT over_total AND NOT over_owner
        AND (key IS NULL OR id IN (SELECT id FROM taken)) ORDER BY id
    RETURNING id, owner
), bodies AS (
    INSERT INTO {s}.inputs (id, body)
    SELECT j.id, j.input FROM judged j JOIN inserted USING (id) WHERE j.input IS NOT NULL
), all_live AS (
    INSERT INTO {s}.live AS l (owner, part, count)
    SELECT '', $17::int2, count(*) FROM inserted HAVING count(*) > 0
    ON CONFLICT (owner, part) DO UPDATE SET count = l.count + excluded.count
), owners_live AS (
    INSERT INTO {s}.live AS l (owner, part, count)
    SELECT owner, 0, count(*) FROM inserted WHERE {counts} GROUP BY owner ORDER BY owner
    ON CONFLICT (owner, part) DO UPDATE SET count = l.count + excluded.count
)
SELECT i.id IS NOT NULL, j.over_total, j.over_owner
FROM judged j LEFT JOIN inserted i USING (id) ORDER BY j.place";

/// Writes a group of operations, each over the version that it expects. The rows are locked in the order
/// of their ids first, which also tells what they were.
const SWAP: &str = "
WITH next AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::int8[], $3::text[], $4::int8[], $5::int8[], $6::int8[],
        $7::int8[], $8::int8[], $9::bytea[], $10::bytea[], $11::bytea[])
    WITH ORDINALITY AS n (id, expected, status, version, write_id, claim_at_ms, settle_at_ms,
        expire_at_ms, record, head, body, place)
), held AS MATERIALIZED (
    SELECT id, version, expire_at_ms FROM {s}.operations WHERE id = ANY ($1) ORDER BY id FOR UPDATE
), written AS (
    UPDATE {s}.operations o SET status = n.status, version = n.version, write_id = n.write_id,
        claim_at_ms = n.claim_at_ms, settle_at_ms = n.settle_at_ms, expire_at_ms = n.expire_at_ms,
        record = n.record
    FROM next n JOIN held h ON h.id = n.id AND h.version = n.expected
        AND (h.expire_at_ms IS NULL OR h.expire_at_ms > {now})
    WHERE o.id = n.id
    RETURNING o.id, o.owner, n.place, n.expire_at_ms IS NOT NULL AS is_finished,
        h.expire_at_ms IS NULL AND n.expire_at_ms IS NOT NULL AS ends
), outcomes AS (
    INSERT INTO {s}.outcomes (id, head, body)
    SELECT n.id, n.head, n.body FROM next n JOIN written USING (place) WHERE n.head IS NOT NULL
    ON CONFLICT (id) DO UPDATE SET head = excluded.head, body = excluded.body
), inputs AS (
    DELETE FROM {s}.inputs i USING written w WHERE i.id = w.id AND w.is_finished
), all_live AS (
    INSERT INTO {s}.live AS l (owner, part, count)
    SELECT '', $12::int2, -count(*) FROM written WHERE ends HAVING count(*) > 0
    ON CONFLICT (owner, part) DO UPDATE SET count = l.count + excluded.count
), owners AS MATERIALIZED (
    SELECT l.owner, l.count - e.count AS count FROM {s}.live l JOIN (
        SELECT owner, count(*) AS count FROM written WHERE ends AND {counts} GROUP BY owner
    ) e ON l.owner = e.owner AND l.part = 0 ORDER BY l.owner FOR UPDATE OF l
), fewer AS (
    UPDATE {s}.live l SET count = o.count FROM owners o
    WHERE l.owner = o.owner AND l.part = 0 AND o.count > 0
), none_left AS (
    DELETE FROM {s}.live l USING owners o WHERE l.owner = o.owner AND l.part = 0 AND o.count <= 0
)
SELECT place FROM written";

/// Removes operations with all that belongs to them, as a query `gone` of their ids and owners says.
macro_rules! remove {
    ($gone:literal) => {
        concat!(
            "WITH gone AS MATERIALIZED (",
            $gone,
            "), removed AS (
    DELETE FROM {s}.operations o USING gone g WHERE o.id = g.id RETURNING o.id
), inputs AS (
    DELETE FROM {s}.inputs i USING gone g WHERE i.id = g.id
), outcomes AS (
    DELETE FROM {s}.outcomes d USING gone g WHERE d.id = g.id
), keys AS (
    DELETE FROM {s}.keys k USING gone g WHERE k.id = g.id
), all_live AS (
    UPDATE {s}.live l SET count = l.count - e.count
    FROM (SELECT count(*) AS count FROM gone WHERE is_live HAVING count(*) > 0) e
    WHERE l.owner = '' AND l.part = (SELECT min(part) FROM {s}.live WHERE owner = '')
), owners AS (
    UPDATE {s}.live l SET count = l.count - e.count
    FROM (SELECT owner, count(*) AS count FROM gone WHERE is_live AND {counts} GROUP BY owner) e
    WHERE l.owner = e.owner AND l.part = 0
)
SELECT count(*) FROM removed"
        )
    };
}

/// Kind by kind, so that work that nobody does hides no other. One past its deadline is for the sweeper.
macro_rules! to_claim {
    ($locked:literal) => {
        concat!(
            "SELECT {now}, d.id, d.record, d.write_id
        FROM unnest($1::text[]) AS k (kind) CROSS JOIN LATERAL (
            SELECT id, record, write_id, claim_at_ms FROM {s}.operations o
            WHERE o.kind = k.kind AND o.claim_at_ms <= {now}
                AND (o.settle_at_ms IS NULL OR o.settle_at_ms > {now}) AND o.id <> ALL ($2)
            ORDER BY o.claim_at_ms, o.id LIMIT {limit} ",
            $locked,
            "
        ) d ORDER BY d.claim_at_ms, d.id LIMIT {limit}"
        )
    };
}

statements! {
    accept(UUID_ARRAY, TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, INT8_ARRAY, INT8_ARRAY, INT8_ARRAY,
        INT8_ARRAY, BYTEA_ARRAY, BYTEA_ARRAY, BYTEA_ARRAY, TEXT_ARRAY, BYTEA_ARRAY, INT8_ARRAY,
        INT8_ARRAY, INT8, INT2) = ACCEPT;
    swap(UUID_ARRAY, INT8_ARRAY, TEXT_ARRAY, INT8_ARRAY, INT8_ARRAY, INT8_ARRAY, INT8_ARRAY,
        INT8_ARRAY, BYTEA_ARRAY, BYTEA_ARRAY, BYTEA_ARRAY, INT2) = SWAP;
    get(UUID_ARRAY) = "SELECT {now}, id, record, write_id FROM {s}.operations WHERE id = ANY ($1)";
    input(UUID_ARRAY) = "SELECT {now}, id, i.body FROM {s}.operations o JOIN {s}.inputs i USING (id)
        WHERE id = ANY ($1) AND (o.expire_at_ms IS NULL OR o.expire_at_ms > {now})";
    outcome(UUID_ARRAY) = "SELECT {now}, id, d.head, d.body
        FROM {s}.operations o JOIN {s}.outcomes d USING (id)
        WHERE id = ANY ($1) AND (o.expire_at_ms IS NULL OR o.expire_at_ms > {now})";
    // Each by the indices, however many there are.
    keys(TEXT_ARRAY, BYTEA_ARRAY, TEXT_ARRAY) = "SELECT {now}, o.id, o.record, o.write_id, o.fingerprint,
            n.place
        FROM unnest($1::text[], $2::bytea[], $3::text[]) WITH ORDINALITY AS n (owner, scope, key, place)
        CROSS JOIN LATERAL (
            SELECT o.id, o.record, o.write_id, k.fingerprint
            FROM {s}.keys k JOIN {s}.operations o USING (id)
            WHERE k.owner = n.owner AND k.scope = sha256(n.scope) AND k.key = n.key LIMIT 1
        ) o";
    now() = "SELECT {now}";
    // What a transaction of several statements is about to lock, in the order in which all lock. An owner
    // who has no count gets one: others could make it meanwhile.
    hold(UUID) = "SELECT {now} FROM {s}.operations WHERE id = $1 FOR UPDATE";
    hold_owners(TEXT_ARRAY) = "INSERT INTO {s}.live AS l (owner, part, count)
        SELECT DISTINCT owner, 0, 0 FROM unnest($1::text[]) AS n (owner) WHERE {counts} ORDER BY owner
        ON CONFLICT (owner, part) DO UPDATE SET count = l.count WHERE false";
    // Counts that were made so, of nothing.
    tidy(TEXT_ARRAY) = "DELETE FROM {s}.live WHERE owner = ANY ($1) AND part = 0 AND count <= 0";
    // Waits for whoever is at it.
    settled(UUID_ARRAY) = "SELECT {now}, id, record, write_id FROM {s}.operations
        WHERE id = ANY ($1) ORDER BY id FOR SHARE";
    now_and_process() = "SELECT {now}, pg_backend_pid()";
    // What another worker looks at now is passed over: it will be that worker's.
    claim(TEXT_ARRAY, UUID_ARRAY) = to_claim!("FOR UPDATE SKIP LOCKED");
    to_claim(TEXT_ARRAY, UUID_ARRAY) = to_claim!("");
    to_settle(TEXT_ARRAY, UUID_ARRAY) = "SELECT {now}, id, record, write_id FROM {s}.operations
        WHERE settle_at_ms <= {now} AND ($1::text[] IS NULL OR kind = ANY ($1)) AND id <> ALL ($2)
        ORDER BY settle_at_ms, id LIMIT {limit}";
    to_expire(TEXT_ARRAY, UUID_ARRAY) = "SELECT {now}, id, record, write_id FROM {s}.operations
        WHERE expire_at_ms <= {now} AND ($1::text[] IS NULL OR kind = ANY ($1)) AND id <> ALL ($2)
        ORDER BY expire_at_ms, id LIMIT {limit}";
    // The kinds of which anything may ever be claimed, from one to the next by the index.
    kinds() = "WITH RECURSIVE k (kind) AS (
            (SELECT kind FROM {s}.operations WHERE claim_at_ms IS NOT NULL ORDER BY kind LIMIT 1)
            UNION ALL
            SELECT (SELECT kind FROM {s}.operations o WHERE claim_at_ms IS NOT NULL AND o.kind > k.kind
                ORDER BY kind LIMIT 1) FROM k WHERE k.kind IS NOT NULL
        ) SELECT kind FROM k WHERE kind IS NOT NULL";
    list(TEXT, UUID) = "SELECT {now}, id, record FROM {s}.operations
        WHERE owner = $1 AND id < $2 ORDER BY id DESC LIMIT {limit}";
    remove(UUID, INT8) = remove!("SELECT id, owner, expire_at_ms IS NULL AS is_live
        FROM {s}.operations WHERE id = $1 AND version = $2
            AND (expire_at_ms IS NULL OR expire_at_ms > {now}) FOR UPDATE");
    make_way(UUID_ARRAY) = remove!("SELECT id, owner, false AS is_live FROM {s}.operations
        WHERE id = ANY ($1) AND expire_at_ms <= {now} ORDER BY id FOR UPDATE");
    purge() = remove!("SELECT id, owner, false AS is_live FROM {s}.operations
        WHERE expire_at_ms <= {now} ORDER BY expire_at_ms, id LIMIT {limit} FOR UPDATE SKIP LOCKED");
    // Whoever is near a limit counts while nobody else does.
    lock(TEXT) = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
}
