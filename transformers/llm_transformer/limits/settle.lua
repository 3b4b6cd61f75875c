#!lua
-- rules.settle in Redis: gives a lease back and charges what was used.
-- KEYS: account (hash), leases (sorted set by expiry). ARGV: lease id, its tokens, tokens used, period
-- ms of tokens (negative is no limit). Returns 0 when the lease had expired: it is then given back
-- already, and nothing is charged.
local now = CLOCK
local period = tonumber(ARGV[4])
local function number(x) return string.format('%.4f', x) end

local member = ARGV[1] .. ':' .. ARGV[2]
local expiry = tonumber(redis.call('ZSCORE', KEYS[2], member))
if not expiry or expiry <= now then return 0 end
redis.call('ZREM', KEYS[2], member)
local stored = redis.call('HMGET', KEYS[1], 't', 'h')
local tat = tonumber(stored[1]) or 0
if period > 0 then tat = math.max(tat, now) + tonumber(ARGV[3]) * period end
local held = math.max(0, (tonumber(stored[2]) or 0) - tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 't', number(tat), 'h', held)
redis.call('PEXPIRE', KEYS[1], math.max(redis.call('PTTL', KEYS[1]), math.ceil(tat - now) + 1000))
return 1
