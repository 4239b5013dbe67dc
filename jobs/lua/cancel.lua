-- id → {the state before, 'cancelled' | 'cancelling' | 'refused' | 'publishing'}, or {} when there is no such job
local id = ARGV[1]
local state = get(id, 'state')
if not state then return {} end
if state == 'cancelled' or state == 'cancelling' then return { state, state } end
if TERMINAL[state] then return { state, 'refused' } end
if state == 'running' and get(id, 'publishing') == get(id, 'claim') then return { state, 'publishing' } end
if state == 'queued' then
  move(id, 'cancelled', '{}')
  return { state, 'cancelled' }
end
move(id, 'cancelling', '{}')
return { state, 'cancelling' }
