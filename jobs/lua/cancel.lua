-- id, token → a verb's answer
local id, token = unpack(ARGV)
local known, state = answered(token), get(id, 'state')
if known then return known end
if not state then return {} end
if state == 'cancelled' or state == 'cancelling' then return answer(token, state, 'unchanged') end
if TERMINAL[state] then return answer(token, state, 'refused') end
if publishing(id) then return answer(token, state, 'publishing') end
move(id, HELD[state] and 'cancelling' or 'cancelled', '{}')
return answer(token, state, 'done')
