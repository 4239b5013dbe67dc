-- id, token → a verb's answer. Refused also while a job that tries it again has not ended: that needs what it left. What
-- it tried again and what tries it again become neighbours, so that a later try still keeps the first job; where nothing
-- tries it again, the job's place in what it tried is free again. Its idempotency key is not: a repetition of the request
-- that made it may still be under way.
local id, token = unpack(ARGV)
local known, state = answered(token), get(id, 'state')
if known then return known end
if not state then return {} end
local last, tries = state, get(id, 'retried_as')
while tries and get(tries, 'state') do
  last, tries = get(tries, 'state'), get(tries, 'retried_as')
end
if not TERMINAL[state] or not TERMINAL[last] then return answer(token, state, 'refused') end
local function tell_disk(other) redis.call('ZADD', PREFIX .. 'unarchived', now(), other) end
local tried, again = get(id, 'retry_of'), get(id, 'retried_as')
if again and not get(again, 'state') then again = nil end
if tried and get(tried, 'retried_as') == id then
  if again then set(tried, 'retried_as', again) else unset(tried, 'retried_as') end
  tell_disk(tried)
end
if tried and again then
  set(again, 'retry_of', tried)
  tell_disk(again)
end
forget(id)
return answer(token, state, 'done')
