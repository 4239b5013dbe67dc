-- id, claim, result (JSON) → 'ok' (from here on the job can only succeed), 'cancelling' or 'lost'
local id, claim, result = unpack(ARGV)
if not holds(id, claim) then return 'lost' end
if get(id, 'state') == 'cancelling' then return 'cancelling' end
if not publishing(id) then set(id, 'publishing', result) end
return 'ok'
