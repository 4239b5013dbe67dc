-- Shared by every script. Time is Redis's own: no process's clock decides anything.
local PREFIX = 'rn:'
local TERMINAL = { succeeded = true, failed = true, cancelled = true }

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function job_key(id) return PREFIX .. 'job:' .. id end
local function events_key(id) return PREFIX .. 'job:' .. id .. ':events' end
local function state_key(state) return PREFIX .. 'state:' .. state end
local function due_key(lane) return PREFIX .. 'due:' .. lane end

local function get(id, field) return redis.call('HGET', job_key(id), field) end
local function set(id, ...) redis.call('HSET', job_key(id), ...) end
local function event(id, kind, data) redis.call('XADD', events_key(id), '*', 'type', kind, 'data', data) end

-- The one place where a state changes: the record, the index of states and the event move together.
local function move(id, to, data)
  local from = get(id, 'state')
  if from then redis.call('ZREM', state_key(from), id) end
  redis.call('ZADD', state_key(to), get(id, 'created_at'), id)
  set(id, 'state', to)
  if to ~= 'queued' then redis.call('ZREM', due_key(get(id, 'lane')), id) end
  if to ~= 'running' and to ~= 'cancelling' then redis.call('ZREM', PREFIX .. 'leases', id) end
  if TERMINAL[to] then
    set(id, 'finished_at', now())
    redis.call('ZADD', PREFIX .. 'unarchived', now(), id)
  end
  event(id, to, data)
end

local function queue(id, due, data)
  move(id, 'queued', data)
  redis.call('ZADD', due_key(get(id, 'lane')), due, id)
end

-- The fence: a writer whose claim is not the job's current one, or whose job has ended, is refused.
local function holds(id, claim)
  local state = get(id, 'state')
  return (state == 'running' or state == 'cancelling') and get(id, 'claim') == claim
end

-- What a claim's death leads to: cancelled if that was asked for, given up after three in a row without a new checkpoint,
-- else queued again, later each time.
local function crashed(id, error)
  local crashes = redis.call('HINCRBY', job_key(id), 'crashes', 1)
  local since = redis.call('HINCRBY', job_key(id), 'crashes_since_checkpoint', 1)
  if get(id, 'state') == 'cancelling' then return move(id, 'cancelled', '{}') end
  if since >= 3 then
    local failure = cjson.decode(error)
    failure.message = 'The job crashed three times without a new checkpoint; the last time: ' .. failure.message
    failure.code = 'crash_loop'
    failure = cjson.encode(failure)
    set(id, 'error', failure)
    return move(id, 'failed', failure)
  end
  queue(id, now() + math.min(2000 * 2 ^ (since - 1), 60000), cjson.encode({ reason = 'crashed', crashes = crashes, error = cjson.decode(error) }))
end
