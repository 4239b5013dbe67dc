-- id, token → a verb's answer
local id, token = unpack(ARGV)
local known, state = answered(token), get(id, 'state')
if known then return known end
if not state then return {} end
if state == 'queued' or state == 'running' then return answer(token, state, 'unchanged') end
if state ~= 'paused' and state ~= 'pausing' then return answer(token, state, 'refused') end
if publishing(id) then return answer(token, state, 'publishing') end
resume(id, 'resumed')
return answer(token, state, 'done')
