-- Shared by every script; LONG stands before it (scripts.py). Time is Redis's own: no process's clock decides anything.
local PREFIX = 'rn:'
local TERMINAL = { succeeded = true, failed = true, cancelled = true }
local HELD = { running = true, cancelling = true, pausing = true }
local PRIORITIES = { 'high', 'normal', 'low' }
local TOKEN_MS = 600000
local LONGEST_PAUSE_MS = 60000

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Now, but later than any moment that was given out before, by thousandths of a millisecond if need be: what is ordered by
-- it keeps the order in which it came.
local function last_moment() return tonumber(redis.call('GET', PREFIX .. 'last_created') or '0') end
local function moment()
  local at = string.format('%.3f', math.max(now(), last_moment() + 0.001))
  redis.call('SET', PREFIX .. 'last_created', at)
  return at
end

-- What is due by now; also what was queued before the clock was set back.
local function latest() return math.max(now(), last_moment()) end

-- For whoever puts down a moment without giving one out: `latest` is to know of a clock that is set back after it.
local function seen()
  if now() > last_moment() then redis.call('SET', PREFIX .. 'last_created', string.format('%.3f', now())) end
end

local function job_key(id) return PREFIX .. 'job:' .. id end
local function events_key(id) return PREFIX .. 'job:' .. id .. ':events' end
local function deliveries_key(id) return PREFIX .. 'job:' .. id .. ':deliveries' end
local function state_key(state) return PREFIX .. 'state:' .. state end
local function due_key(lane, priority)
  if priority == 'normal' then return PREFIX .. 'due:' .. lane end
  return PREFIX .. 'due:' .. lane .. ':' .. priority
end

local function get(id, field) return redis.call('HGET', job_key(id), field) or nil end
local function set(id, ...) redis.call('HSET', job_key(id), ...) end
local function unset(id, ...) redis.call('HDEL', job_key(id), ...) end
local function event(id, kind, data)
  if redis.call('XLEN', events_key(id)) >= LONG then redis.call('ZADD', PREFIX .. 'long', 0, id) end
  return redis.call('XADD', events_key(id), '*', 'type', kind, 'data', data)
end
local function queue_of(id) return due_key(get(id, 'lane'), get(id, 'priority') or 'normal') end

-- Somebody wants to be told of this state: put the delivery down in the same step, to be sent when someone gets to it.
local function announce(id, state, event_id)
  local webhook = get(id, 'webhook')
  if not webhook then return end
  for _, wanted in ipairs(cjson.decode(webhook).events) do
    if wanted == state then
      seen()
      redis.call('ZADD', PREFIX .. 'deliveries', now(), id .. ' ' .. event_id)
      set(id, 'announced', (get(id, 'announced') or '') .. event_id .. ' ')
      set(id, 'delivery:' .. event_id, state .. ' 0 0') -- no attempt and no lease; the stream may drop the event before
    end
  end
end

-- Count the time since the last renewal as run, but not beyond the lease, when nobody can say that anything ran: the
-- machine may have slept for a night, or its clock been set. An earlier version counted at a claim's end alone.
local function count(id)
  local since = get(id, 'counted_at') or get(id, 'claimed_at')
  if not since then return end
  local until_then = math.min(now(), tonumber(redis.call('ZSCORE', PREFIX .. 'leases', id)) or now())
  redis.call('HINCRBY', job_key(id), 'ran_ms', string.format('%.0f', math.max(0, until_then - since)))
  set(id, 'counted_at', now())
end

local function hold(id, lease)
  count(id)
  redis.call('ZADD', PREFIX .. 'leases', now() + lease, id)
  unset(id, 'late_since')
end

-- The claim is over: its time is counted, and its token gets nobody a job any more.
local function let_go(id)
  count(id)
  local token = get(id, 'claim_token')
  if token then redis.call('DEL', PREFIX .. 'claim:' .. token) end
  redis.call('ZREM', PREFIX .. 'leases', id)
  unset(id, 'claimed_at', 'counted_at', 'claim_token', 'late_since')
end

-- The one place where a state changes: the record, the index of states and the event move together.
local function move(id, to, data)
  local from = get(id, 'state')
  if from then redis.call('ZREM', state_key(from), id) end
  redis.call('ZADD', state_key(to), get(id, 'created_at'), id)
  set(id, 'state', to)
  if from == 'queued' then redis.call('ZREM', queue_of(id), id) end
  if HELD[from] and not HELD[to] then let_go(id) end
  if TERMINAL[to] then
    local ended = now()
    set(id, 'finished_at', ended)
    redis.call('ZADD', PREFIX .. 'unarchived', ended, id)
    redis.call('ZADD', PREFIX .. 'ended', ended, id)
  end
  announce(id, to, event(id, to, data))
end

local function queue(id, due, data)
  move(id, 'queued', data)
  redis.call('ZADD', queue_of(id), due, id)
end

-- A new record, queued. The fields are those of HSET.
local function create(id, reason, ...)
  local created = moment()
  set(id, 'id', id, 'created_at', created, 'claim', 0, 'crashes', 0, 'crashes_since_checkpoint', 0, 'ran_ms', 0, ...)
  redis.call('ZADD', PREFIX .. 'jobs', created, id)
  queue(id, created, cjson.encode(reason))
end

-- Whether there are as many jobs that have not ended as there may be, '' for any number.
local function full(most)
  if most == '' then return false end
  local found = 0
  for _, state in ipairs({ 'queued', 'running', 'pausing', 'paused', 'cancelling' }) do
    found = found + redis.call('ZCARD', state_key(state))
  end
  return found >= tonumber(most)
end

-- The fence: a writer whose claim is not the job's current one, or whose job is no longer held, is refused.
local function holds(id, claim)
  return HELD[get(id, 'state')] and get(id, 'claim') == claim
end

-- The result that is being published (JSON), or nil. From that moment on others may see it, so that the job can only
-- succeed, whatever is asked and whoever dies; or fail, where a claim has seen that nothing of it is public.
local function publishing(id)
  local result = get(id, 'publishing')
  if result and string.sub(result, 1, 1) == '{' and not TERMINAL[get(id, 'state')] then return result end
end

-- An error as events show it. Its log may be long and stays in the record.
local function shown(error)
  local parts = cjson.decode(error)
  parts.log = nil
  return parts
end

-- What a claim's death leads to: cancelled if that was asked for, given up after three in a row without a new checkpoint,
-- paused if that was asked for, else queued again; always that where the result is being published. It waits a while, and
-- longer the second time, but for a worker that was `lost` once: that says nothing against the job, which keeps its place.
local function crashed(id, error, lost)
  local crashes = redis.call('HINCRBY', job_key(id), 'crashes', 1)
  local since = redis.call('HINCRBY', job_key(id), 'crashes_since_checkpoint', 1)
  local state = get(id, 'state')
  if state == 'cancelling' then return move(id, 'cancelled', '{}') end
  if since >= 3 and not publishing(id) then
    local failure = cjson.decode(error)
    failure.message = 'The job crashed three times without a new checkpoint; the last time: ' .. failure.message
    failure.code = 'crash_loop'
    failure = cjson.encode(failure)
    set(id, 'error', failure)
    return move(id, 'failed', cjson.encode(shown(failure)))
  end
  local why = cjson.encode({ reason = 'crashed', crashes = crashes, error = shown(error) })
  if state == 'pausing' and not publishing(id) then return move(id, 'paused', why) end
  if lost and publishing(id) and since <= 3 then return queue(id, '-inf', why) end
  if lost and since == 1 then return queue(id, get(id, 'place') or moment(), why) end
  -- By the clock alone: after it was set back, a moment may be far in the future, and so would the end of the wait be.
  -- Where it is set back during the wait, the wait ends with that (`claim`).
  seen()
  queue(id, string.format('%.3f', now() + math.min(2000 * 2 ^ (since - 1), LONGEST_PAUSE_MS)), why)
end

-- A paused job is queued; one that is just being paused runs on, or is queued when its process has stopped.
local function resume(id, reason)
  local why = cjson.encode({ reason = reason })
  if get(id, 'state') == 'pausing' then return move(id, 'running', why) end
  set(id, 'crashes_since_checkpoint', 0)
  queue(id, moment(), why)
end

-- Orders. Settings are kept as JSON texts and never read here: Lua would round their numbers.

local function settings_of(id) return cjson.decode(get(id, 'settings') or '{}') end

local function settings_json(settings)
  local parts = {}
  for name, value in pairs(settings) do table.insert(parts, cjson.encode(name) .. ':' .. value) end
  table.sort(parts)
  return '{' .. table.concat(parts, ',') .. '}'
end

local function orders_of(id)
  return cjson.decode(get(id, 'orders') or '{"version":0,"finish":false,"checkpoint":0}')
end

local function order(id, orders)
  orders.version = orders.version + 1
  local form = '{"version":%d,"settings":%s,"finish":%s,"checkpoint":%d}'
  local settings = settings_json(settings_of(id))
  set(id, 'orders', string.format(form, orders.version, settings, tostring(orders.finish), orders.checkpoint))
end

-- What the holder of a claim is told.
local function told(id) return { get(id, 'state'), orders_of(id).version } end

-- Verbs. Each answers {the state before, outcome}, {} for an unknown job; a verb with a token that was seen is answered
-- what it was then, and does nothing.

local function answered(token)
  local answer = redis.call('GET', PREFIX .. 'verb:' .. token)
  return answer and cjson.decode(answer)
end

local function answer(token, before, outcome)
  redis.call('SET', PREFIX .. 'verb:' .. token, cjson.encode({ before, outcome }), 'PX', TOKEN_MS)
  return { before, outcome }
end

-- Nothing of the job stays, but its token keys, which say nothing about it and run out.
local function forget(id)
  for event_id in string.gmatch(get(id, 'announced') or '', '%S+') do
    redis.call('ZREM', PREFIX .. 'deliveries', id .. ' ' .. event_id)
  end
  redis.call('ZREM', state_key(get(id, 'state')), id)
  for _, index in ipairs({ 'jobs', 'ended', 'unarchived', 'long' }) do redis.call('ZREM', PREFIX .. index, id) end
  redis.call('DEL', job_key(id), events_key(id), deliveries_key(id))
end
