-- id, token → a verb's answer
local id, token = unpack(ARGV)
local known, state = answered(token), get(id, 'state')
if known then return known end
if not state then return {} end
if state == 'paused' or state == 'pausing' then return answer(token, state, 'unchanged') end
if state ~= 'queued' and state ~= 'running' then return answer(token, state, 'refused') end
if publishing(id) then return answer(token, state, 'publishing') end
move(id, state == 'running' and 'pausing' or 'paused', '{}')
return answer(token, state, 'done')
