-- id, token → a verb's answer. Refused also while a job that tries it again has not ended: that needs what it left. The
-- job's place in what it tried again is free again. Its idempotency key is not: a repetition of the request that made it
-- may still be under way.
local id, token = unpack(ARGV)
local known, state = answered(token), get(id, 'state')
if known then return known end
if not state then return {} end
local last, tries = state, get(id, 'retried_as')
while tries and get(tries, 'state') do
  last, tries = get(tries, 'state'), get(tries, 'retried_as')
end
if not TERMINAL[state] or not TERMINAL[last] then return answer(token, state, 'refused') end
local tried = get(id, 'retry_of')
if tried and get(tried, 'retried_as') == id then
  unset(tried, 'retried_as')
  redis.call('ZADD', PREFIX .. 'unarchived', now(), tried) -- the record on disk is to say so too
end
forget(id)
return answer(token, state, 'done')
