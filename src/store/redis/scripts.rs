//! All Lua of the store. Each script is one step of the server: nobody sees half of it.
//!
//! An operation is a string: a line of what the indices need (version, write id, when it is to be settled
//! and expires, kind, owner), then its record. What else belongs to it has keys of its own, all in one hash
//! slot by the prefix:
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
//! | `w` | nothing: it is written where replicas are waited for, and what is told may be another's |
//!
//! A script does what several calls ask, one after the other. It reads what they need with one command,
//! keeps what it is to write, and writes all of it at the end: most of what a short command costs is not
//! its work. So it also fails, if it does, before it has written.

use redis::Script;

/// What every script begins with.
const PRELUDE: &str = r"
local p = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function split(value)
    return string.match(value, '^(%d+) %d+ (%S+) (%S+) (%S+) ([^\n]*)\n')
end

-- A command with as many arguments as there are, some at a time: Lua's stack is small.
local function many(command, key, arguments)
    for from = 1, #arguments, 1000 do
        local to = math.min(from + 999, #arguments)
        if key then
            redis.call(command, key, unpack(arguments, from, to))
        else
            redis.call(command, unpack(arguments, from, to))
        end
    end
end
";

/// What the scripts that write have in common.
const WRITES: &str = r"
-- What was read or is to be written, by key; false where there is nothing.
local held, is_dirty = {}, {}

local function fetch(keys)
    for from = 1, #keys, 1000 do
        local values = redis.call('MGET', unpack(keys, from, math.min(from + 999, #keys)))
        for at, value in ipairs(values) do
            held[keys[from + at - 1]] = value
        end
    end
end

local function get(key)
    if held[key] == nil then
        held[key] = redis.call('GET', key)
    end
    return held[key]
end

local function put(key, value)
    held[key], is_dirty[key] = value, true
end

-- Scores by index and id, false where the id is to go.
local moved, kinds = {}, {}

local function move(index, id, at)
    moved[index] = moved[index] or {}
    moved[index][id] = at ~= '-' and at
end

-- By how many more there are, by owner; all together without a name.
local more = {}

local function count(owner, by)
    more[''] = (more[''] or 0) + by
    if owner ~= '' then
        more[owner] = (more[owner] or 0) + by
    end
end

local function live(owner)
    return p .. (owner == '' and 'live' or 'live:' .. owner)
end

local function is_full(owner, limit)
    return limit ~= '-' and tonumber(get(live(owner)) or 0) + (more[owner] or 0) >= tonumber(limit)
end

local function write()
    local set, gone = {}, {}
    for key in pairs(is_dirty) do
        if held[key] then
            set[#set + 1] = key
            set[#set + 1] = held[key]
        else
            gone[#gone + 1] = key
        end
    end
    many('MSET', nil, set)
    many('UNLINK', nil, gone)
    many('SADD', p .. 'kinds', kinds)
    for index, ids in pairs(moved) do
        local add, remove = {}, {}
        for id, at in pairs(ids) do
            if at then
                add[#add + 1] = at
                add[#add + 1] = id
            else
                remove[#remove + 1] = id
            end
        end
        many('ZADD', index, add)
        many('ZREM', index, remove)
    end
    for owner, by in pairs(more) do
        if by ~= 0 and redis.call('INCRBY', live(owner), by) <= 0 and owner ~= '' then
            redis.call('DEL', live(owner))
        end
    end
end

local function drop(id, value)
    local _, _, expire, kind, owner = split(value)
    local named = p .. 'n:' .. id
    local key = get(named)
    if key then
        put(key, false)
        put(named, false)
    end
    put(p .. 'o:' .. id, false)
    put(p .. 'i:' .. id, false)
    put(p .. 'u:' .. id, false)
    move(p .. 'c:' .. kind, id, '-')
    move(p .. 's', id, '-')
    move(p .. 'x', id, '-')
    if owner ~= '' then
        move(p .. 'l:' .. owner, id, '-')
    end
    if expire == '-' then
        count(owner, -1)
    end
end

-- An operation, and whether it has expired.
local function find(id)
    local value = get(p .. 'o:' .. id)
    local _, _, expire = split(value or '')
    return value, expire and expire ~= '-' and tonumber(expire) <= now
end

-- What is in the way of a new one. What is left of one that has expired goes.
local function in_the_way(id)
    local value, has_expired = find(id)
    if has_expired then
        drop(id, value)
    end
    return not has_expired and value
end

-- 13 arguments: id, kind, owner, claim, settle, expire, operation, has input, input, key, fingerprint,
-- limit of all, limit of the owner
local function accept(at, is_limited)
    local id, kind, owner, key = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 9]
    if key ~= '' then
        key = p .. 'k:' .. key
        local used = get(key)
        local value = used and in_the_way(string.sub(used, 1, 32))
        if value then
            if string.sub(used, 33) ~= ARGV[at + 10] then
                return 'reused'
            end
            return {'existing', value}
        end
    end
    local value = in_the_way(id)
    if value then
        return {'existing', value}
    end
    if is_limited and is_full('', ARGV[at + 11]) then
        return 'full'
    end
    if is_limited and owner ~= '' and is_full(owner, ARGV[at + 12]) then
        return 'owner is full'
    end
    put(p .. 'o:' .. id, ARGV[at + 6])
    -- It is in no index, or on its way out of all.
    if ARGV[at + 3] ~= '-' then
        move(p .. 'c:' .. kind, id, ARGV[at + 3])
    end
    if ARGV[at + 4] ~= '-' then
        move(p .. 's', id, ARGV[at + 4])
    end
    -- Also of one that cannot be claimed yet: given back it can.
    if not kinds[kind] then
        kinds[kind] = true
        kinds[#kinds + 1] = kind
    end
    if ARGV[at + 7] == '1' then
        put(p .. 'i:' .. id, ARGV[at + 8])
    end
    if key ~= '' then
        put(key, id .. ARGV[at + 10])
        put(p .. 'n:' .. id, key)
    end
    if owner ~= '' then
        move(p .. 'l:' .. owner, id, 0)
    end
    count(owner, 1)
    return 'created'
end
";

/// What each of several new operations becomes.
const ACCEPT: &str = r"
local keys, told = {}, {}
for at = 1, #ARGV, 13 do
    keys[#keys + 1] = p .. 'o:' .. ARGV[at]
    if ARGV[at + 9] ~= '' then
        keys[#keys + 1] = p .. 'k:' .. ARGV[at + 9]
    end
end
fetch(keys)
for at = 1, #ARGV, 13 do
    told[#told + 1] = accept(at, true)
end
write()
return told
";

/// What becomes of each of several changes: id, expected version, claim, settle, expire, operation (to
/// remove it: nothing), has outcome, outcome, how many new operations follow from it, and those.
const CHANGE: &str = r"
local function change(at)
    local id, settle, expire, next = ARGV[at], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
    local value, has_expired = find(id)
    if not value or has_expired then
        return 'gone'
    end
    local version, settled, expired, kind, owner = split(value)
    if version ~= ARGV[at + 1] then
        return {'conflict', value}
    end
    if next == '' then
        drop(id, value)
        return 'changed'
    end
    put(p .. 'o:' .. id, next)
    move(p .. 'c:' .. kind, id, ARGV[at + 2])
    if settle ~= settled then
        move(p .. 's', id, settle)
    end
    if expire ~= '-' then
        move(p .. 'x', id, expire)
        put(p .. 'i:' .. id, false)
        if expired == '-' then
            count(owner, -1)
        end
    end
    if ARGV[at + 6] == '1' then
        put(p .. 'u:' .. id, ARGV[at + 7])
    end
    for new = at + 9, at + 9 + 13 * (ARGV[at + 8] - 1), 13 do
        accept(new, false)
    end
    return 'changed'
end

local starts, keys, told, at = {}, {}, {}, 1
while at <= #ARGV do
    starts[#starts + 1] = at
    keys[#keys + 1] = p .. 'o:' .. ARGV[at]
    at = at + 9 + 13 * ARGV[at + 8]
end
fetch(keys)
for _, start in ipairs(starts) do
    told[#told + 1] = change(start)
end
write()
return told
";

/// How many at the most.
const PURGE: &str = r"
local ids = redis.call('ZRANGEBYSCORE', p .. 'x', '-inf', now, 'LIMIT', 0, ARGV[1])
local keys = {}
for _, id in ipairs(ids) do
    keys[#keys + 1] = p .. 'o:' .. id
    keys[#keys + 1] = p .. 'n:' .. id
end
fetch(keys)
for _, id in ipairs(ids) do
    local value = get(p .. 'o:' .. id)
    if value and split(value) then
        drop(id, value)
    else
        -- What is left of a value that somebody else has damaged.
        put(p .. 'o:' .. id, false)
        put(p .. 'i:' .. id, false)
        put(p .. 'u:' .. id, false)
        move(p .. 'x', id, '-')
    end
end
write()
return #ids
";

/// How many at the most, for how many milliseconds to keep them from others, and the kinds; without any,
/// all. Whoever is given one to keep claims it at once or not at all: until then it is out of the others'
/// sight, so that not all try the same. If none is kept, that many of each kind.
const TO_CLAIM: &str = r"
local limit, kept = tonumber(ARGV[1]), tonumber(ARGV[2])
local kinds = {unpack(ARGV, 4)}
if ARGV[3] == 'all' then
    kinds = redis.call('SMEMBERS', p .. 'kinds')
end
local due = {}
for _, kind in ipairs(kinds) do
    local index, taken, passed = p .. 'c:' .. kind, 0, 0
    while taken < limit and passed < 1000 do
        local ids = redis.call('ZRANGEBYSCORE', index, '-inf', now, 'WITHSCORES', 'LIMIT',
            taken + passed, limit - taken)
        if #ids == 0 then
            break
        end
        local keys = {}
        for at = 1, #ids, 2 do
            keys[#keys + 1] = p .. 'o:' .. ids[at]
        end
        for at, value in ipairs(redis.call('MGET', unpack(keys))) do
            local _, settle = split(value or '')
            -- One past its deadline is for the sweeper.
            if not settle or (settle ~= '-' and tonumber(settle) <= now) then
                passed = passed + 1
            else
                taken = taken + 1
                due[#due + 1] = {index, ids[2 * at - 1], tonumber(ids[2 * at]), value}
            end
        end
    end
end
table.sort(due, function(one, other)
    return one[3] < other[3] or (one[3] == other[3] and one[2] < other[2])
end)
local found = {now}
for at, it in ipairs(due) do
    if kept > 0 then
        if at > limit then
            break
        end
        redis.call('ZADD', it[1], now + kept, it[2])
    end
    found[#found + 1] = it[4]
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
    pub(super) change: Script,
    pub(super) purge: Script,
    pub(super) to_claim: Script,
    pub(super) due: Script,
    pub(super) list: Script,
}

impl Scripts {
    /// `has_flags`: the server is 7.0 or later, and knows that a script may end work although the memory
    /// is used up.
    pub(super) fn new(has_flags: bool) -> Self {
        let script = |flags: &str, parts: &[&str]| {
            let first = if has_flags { format!("#!lua{flags}\n") } else { String::new() };
            Script::new(&format!("{first}{PRELUDE}{}", parts.concat()))
        };
        Self {
            accept: script("", &[WRITES, ACCEPT]),
            change: script(" flags=allow-oom", &[WRITES, CHANGE]),
            purge: script(" flags=allow-oom", &[WRITES, PURGE]),
            to_claim: script(" flags=allow-oom", &[TO_CLAIM]),
            due: script(" flags=no-writes", &[DUE]),
            list: script(" flags=no-writes", &[LIST]),
        }
    }

    pub(super) fn all(&self) -> [&Script; 6] {
        let Self { accept, change, purge, to_claim, due, list } = self;
        [accept, change, purge, to_claim, due, list]
    }
}
