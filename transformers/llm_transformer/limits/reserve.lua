#!lua
-- rules.reserve in Redis: one request and its tokens, all or nothing, on Redis's clock.
-- KEYS: account (hash), leases (sorted set by expiry), address (string). All in one hash slot.
-- ARGV: lease id, tokens, lease ms, then period ms and burst of requests and of address, most
-- concurrent, period ms and burst of tokens; a negative number is no limit.
-- With a first line like this (Redis 7) a server without memory refuses the whole script, not the rest
-- of one half done.
-- Returns: which limit refused (0 none, 1 requests, 2 address, 3 concurrent, 4 tokens), wait ms, and
-- what is left and the ms until it is whole, for requests, address, concurrent and tokens.
local now = CLOCK
local tokens, lease_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
local period, burst = { tonumber(ARGV[4]), tonumber(ARGV[6]) }, { tonumber(ARGV[5]), tonumber(ARGV[7]) }
local concurrent = tonumber(ARGV[8])
local token_period, token_burst = tonumber(ARGV[9]), tonumber(ARGV[10])
local SLACK, UNKNOWN_MS = 1e-3, 1000

local stored = redis.call('HMGET', KEYS[1], 'r', 't', 'h')
local tat = { tonumber(stored[1]) or 0, 0 }
if period[2] > 0 then tat[2] = tonumber(redis.call('GET', KEYS[3])) or 0 end
local token_tat, held = tonumber(stored[2]) or 0, tonumber(stored[3]) or 0

local function number(x) return string.format('%.4f', x) end

-- A lease is "id:tokens". What has expired is given back.
local stale = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', number(now))
for _, lease in ipairs(stale) do
  held = held - tonumber(lease:match(':(%d+)$'))
  redis.call('ZREM', KEYS[2], lease)
end
local live = redis.call('ZCARD', KEYS[2])
-- Without leases nothing is held, whatever Redis may have evicted or lost.
if live == 0 or held < 0 then held = 0 end

local worst, wait = 0, 0
local function hold(which, ms)
  if ms > wait then worst, wait = which, ms end
end
for which = 1, 2 do
  if period[which] > 0 then
    local over = math.max(0, tat[which] - now) - (burst[which] - 1) * period[which]
    if over > SLACK then hold(which, over) end
  end
end
if concurrent > 0 and live >= concurrent then hold(3, UNKNOWN_MS) end
if token_period > 0 then
  local level = math.max(0, token_tat - now) / token_period
  local over = level + held + tokens - token_burst
  if over > SLACK then
    if over <= level then hold(4, over * token_period) else hold(4, math.max(level * token_period, UNKNOWN_MS)) end
  end
end

if worst == 0 then
  local keep = 0
  for which = 1, 2 do
    if period[which] > 0 then tat[which] = math.max(tat[which], now) + period[which] end
  end
  if period[1] > 0 then keep = math.max(keep, tat[1] - now) end
  if period[2] > 0 then
    redis.call('SET', KEYS[3], number(tat[2]), 'PX', math.ceil(tat[2] - now) + 1000)
  end
  if concurrent > 0 or token_period > 0 then
    held, live = held + tokens, live + 1
    redis.call('ZADD', KEYS[2], number(now + lease_ms), ARGV[1] .. ':' .. ARGV[2])
    local left = math.max(redis.call('PTTL', KEYS[2]), math.ceil(lease_ms) + 1000)
    redis.call('PEXPIRE', KEYS[2], left)
    keep = math.max(keep, left, token_tat - now)
  end
  redis.call('HSET', KEYS[1], 'r', number(tat[1]), 't', number(token_tat), 'h', held)
  redis.call('PEXPIRE', KEYS[1], math.max(redis.call('PTTL', KEYS[1]), math.ceil(keep) + 1000))
elseif #stale > 0 then
  redis.call('HSET', KEYS[1], 'h', held)
end

local answer = { worst, math.ceil(wait) }
for which = 1, 2 do
  if period[which] > 0 then
    local ahead = math.max(0, tat[which] - now)
    table.insert(answer, math.max(0, math.floor(burst[which] - ahead / period[which] + SLACK)))
    table.insert(answer, math.ceil(ahead))
  else
    table.insert(answer, 0)
    table.insert(answer, 0)
  end
end
table.insert(answer, math.max(0, concurrent - live))
local full = math.max(0, token_tat - now)
table.insert(answer, token_period > 0 and math.max(0, math.floor(token_burst - held - full / token_period + SLACK)) or 0)
table.insert(answer, math.ceil(full))
return answer
