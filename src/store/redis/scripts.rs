//! All Lua of the store. Each script is one step of the server: nobody sees half of it.
//!
//! An operation is a string: a line of what the indices need (version, write id, expiry, kind, owner),
//! then its record. What else belongs to it has keys of its own, all in one hash slot by the prefix:
//!
//! | key after the prefix | what it is |
//! | --- | --- |
//! | `o:ID` | the operation |
//! | `i:ID`, `u:ID` | its input; its outcome: the length of the head, the head, the body |
//! | `k:…` | an idempotency key: the id, then the fingerprint |
//! | `n:ID` | the name of the operation's idempotency key |
//! | `c:KIND`, `s`, `x` | by the time from which on it can be claimed, is to be settled, has expired |
//! | `kinds` | the kinds that were ever accepted |
//! | `l:OWNER` | an owner's operations |
//! | `live`, `live:OWNER` | how many unfinished operations there are |

use redis::Script;

/// What every script begins with.
const PRELUDE: &str = r"
local p = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function split(value)
    return string.match(value, '^(%d+) %d+ (%S+) (%S+) ([^\n]*)\n')
end

local function has_expired(expire)
    return expire ~= '-' and tonumber(expire) <= now
end

local function count(owner, by)
    redis.call('INCRBY', p .. 'live', by)
    if owner ~= '' and redis.call('INCRBY', p .. 'live:' .. owner, by) <= 0 then
        redis.call('DEL', p .. 'live:' .. owner)
    end
end

local function drop(id, value)
    local _, expire, kind, owner = split(value)
    redis.call('UNLINK', p .. 'o:' .. id, p .. 'i:' .. id, p .. 'u:' .. id)
    redis.call('ZREM', p .. 'c:' .. kind, id)
    redis.call('ZREM', p .. 's', id)
    redis.call('ZREM', p .. 'x', id)
    local key = redis.call('GET', p .. 'n:' .. id)
    if key then
        redis.call('DEL', key, p .. 'n:' .. id)
    end
    if owner ~= '' then
        redis.call('ZREM', p .. 'l:' .. owner, id)
    end
    if expire == '-' then
        count(owner, -1)
    end
end

-- 13 arguments: id, kind, owner, claim, settle, expire, operation, has input, input, key, fingerprint,
-- limit of all, limit of the owner
local function accept(at, is_limited)
    local id, kind, owner = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local key = ARGV[at + 9]
    if key ~= '' then
        key = p .. 'k:' .. key
        local used = redis.call('GET', key)
        local other = used and string.sub(used, 1, 32)
        local value = other and redis.call('GET', p .. 'o:' .. other)
        if value then
            local _, expire = split(value)
            if has_expired(expire) then
                drop(other, value)
            elseif string.sub(used, 33) ~= ARGV[at + 10] then
                return {'reused', now}
            else
                return {'existing', now, value}
            end
        end
    end
    local value = redis.call('GET', p .. 'o:' .. id)
    if value then
        local _, expire = split(value)
        if not has_expired(expire) then
            return {'existing', now, value}
        end
        drop(id, value)
    end
    if is_limited then
        local total, owned = ARGV[at + 11], ARGV[at + 12]
        if total ~= '-' and tonumber(redis.call('GET', p .. 'live') or 0) >= tonumber(total) then
            return {'full', now}
        end
        if owned ~= '-' and owner ~= ''
            and tonumber(redis.call('GET', p .. 'live:' .. owner) or 0) >= tonumber(owned) then
            return {'owner is full', now}
        end
    end
    redis.call('SET', p .. 'o:' .. id, ARGV[at + 6])
    if ARGV[at + 3] ~= '-' then
        redis.call('ZADD', p .. 'c:' .. kind, ARGV[at + 3], id)
        redis.call('SADD', p .. 'kinds', kind)
    end
    if ARGV[at + 4] ~= '-' then
        redis.call('ZADD', p .. 's', ARGV[at + 4], id)
    end
    if ARGV[at + 5] ~= '-' then
        redis.call('ZADD', p .. 'x', ARGV[at + 5], id)
    end
    if ARGV[at + 7] == '1' then
        redis.call('SET', p .. 'i:' .. id, ARGV[at + 8])
    end
    if key ~= '' then
        redis.call('SET', key, id .. ARGV[at + 10])
        redis.call('SET', p .. 'n:' .. id, key)
    end
    if owner ~= '' then
        redis.call('ZADD', p .. 'l:' .. owner, 0, id)
    end
    count(owner, 1)
    return {'created', now}
end
";

const ACCEPT: &str = "return accept(1, true)";

/// id, expected version, claim, settle, expire, operation, has outcome, outcome, and what follows from it.
const SWAP: &str = r"
local id = ARGV[1]
local before = redis.call('GET', p .. 'o:' .. id)
if not before then
    return {'gone', now}
end
local version, expire, kind, owner = split(before)
if has_expired(expire) then
    return {'gone', now}
end
if version ~= ARGV[2] then
    return {'conflict', now, before}
end
redis.call('SET', p .. 'o:' .. id, ARGV[6])
local function index(key, at)
    if at == '-' then
        redis.call('ZREM', key, id)
    else
        redis.call('ZADD', key, at, id)
    end
end
index(p .. 'c:' .. kind, ARGV[3])
index(p .. 's', ARGV[4])
if ARGV[5] ~= '-' then
    redis.call('ZADD', p .. 'x', ARGV[5], id)
    redis.call('UNLINK', p .. 'i:' .. id)
    if expire == '-' then
        count(owner, -1)
    end
end
if ARGV[7] == '1' then
    redis.call('SET', p .. 'u:' .. id, ARGV[8])
end
for at = 9, #ARGV, 13 do
    accept(at, false)
end
return {'swapped', now}
";

/// id, expected version.
const REMOVE: &str = r"
local before = redis.call('GET', p .. 'o:' .. ARGV[1])
if not before then
    return {'gone', now}
end
local version, expire = split(before)
if has_expired(expire) then
    return {'gone', now}
end
if version ~= ARGV[2] then
    return {'conflict', now, before}
end
drop(ARGV[1], before)
return {'swapped', now}
";

/// How many at the most.
const PURGE: &str = r"
local ids = redis.call('ZRANGEBYSCORE', p .. 'x', '-inf', now, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(ids) do
    local value = redis.call('GET', p .. 'o:' .. id)
    if value and split(value) then
        drop(id, value)
    else
        -- What is left of a value that somebody else has damaged.
        redis.call('UNLINK', p .. 'o:' .. id, p .. 'i:' .. id, p .. 'u:' .. id)
        redis.call('ZREM', p .. 'x', id)
    end
end
return #ids
";

/// How many of each kind at the most, for how many milliseconds to keep them from others, and the kinds;
/// without any, all. Whoever is given one claims it at once or not at all: until then it is out of the
/// others' sight, so that not all try the same.
const TO_CLAIM: &str = r"
local limit, kept = tonumber(ARGV[1]), tonumber(ARGV[2])
local kinds = {unpack(ARGV, 4)}
if ARGV[3] == 'all' then
    kinds = redis.call('SMEMBERS', p .. 'kinds')
end
local found = {now}
for _, kind in ipairs(kinds) do
    local key, taken, passed = p .. 'c:' .. kind, 0, 0
    while taken < limit and passed < 1000 do
        local ids = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', passed, limit - taken)
        if #ids == 0 then
            break
        end
        for _, id in ipairs(ids) do
            -- One past its deadline is for the sweeper.
            local settle = redis.call('ZSCORE', p .. 's', id)
            local value = redis.call('GET', p .. 'o:' .. id)
            if not value or (settle and tonumber(settle) <= now) then
                passed = passed + 1
            else
                taken = taken + 1
                found[#found + 1] = value
                if kept > 0 then
                    redis.call('ZADD', key, now + kept, id)
                else
                    passed = passed + 1
                end
            end
        end
    end
end
return found
";

/// Which index, how many, how many to pass over.
const DUE: &str = r"
local found = {now}
local ids = redis.call('ZRANGEBYSCORE', p .. ARGV[1], '-inf', now, 'LIMIT', ARGV[3], ARGV[2])
for _, id in ipairs(ids) do
    found[#found + 1] = redis.call('GET', p .. 'o:' .. id) or ''
end
return found
";

/// Owner, where to begin, how many: ids and operations in turn.
const LIST: &str = r"
local found = {now}
local ids = redis.call('ZREVRANGEBYLEX', p .. 'l:' .. ARGV[1], ARGV[2], '-', 'LIMIT', 0, ARGV[3])
for _, id in ipairs(ids) do
    found[#found + 1] = id
    found[#found + 1] = redis.call('GET', p .. 'o:' .. id) or ''
end
return found
";

/// The scripts, as the server knows them.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) accept: Script,
    pub(super) swap: Script,
    pub(super) remove: Script,
    pub(super) purge: Script,
    pub(super) to_claim: Script,
    pub(super) due: Script,
    pub(super) list: Script,
}

impl Scripts {
    /// `has_flags`: the server is 7.0 or later, and knows that a script may end work although the memory
    /// is used up.
    pub(super) fn new(has_flags: bool) -> Self {
        let script = |flags: &str, body: &str| {
            let first = if has_flags { format!("#!lua{flags}\n") } else { String::new() };
            Script::new(&format!("{first}{PRELUDE}{body}"))
        };
        Self {
            accept: script("", ACCEPT),
            swap: script(" flags=allow-oom", SWAP),
            remove: script(" flags=allow-oom", REMOVE),
            purge: script(" flags=allow-oom", PURGE),
            to_claim: script(" flags=allow-oom", TO_CLAIM),
            due: script(" flags=no-writes", DUE),
            list: script(" flags=no-writes", LIST),
        }
    }

    pub(super) fn all(&self) -> [&Script; 7] {
        let Self { accept, swap, remove, purge, to_claim, due, list } = self;
        [accept, swap, remove, purge, to_claim, due, list]
    }
}
