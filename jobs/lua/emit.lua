-- id, claim, sequence number, patch of the record (JSON object of JSON strings), then type, data, type, data, …
-- → 'ok' or 'lost'
local id, claim, sequence = ARGV[1], ARGV[2], tonumber(ARGV[3])
if not holds(id, claim) then return 'lost' end
local mark = claim .. ':' .. sequence
local seen_claim, seen = string.match(get(id, 'emitted') or '', '^(%d+):(%d+)$')
if seen_claim == claim and tonumber(seen) >= sequence then return 'ok' end
set(id, 'emitted', mark)
for field, value in pairs(cjson.decode(ARGV[4])) do set(id, field, value) end
for i = 5, #ARGV, 2 do
  if ARGV[i] == 'checkpoint' then set(id, 'crashes_since_checkpoint', 0) end
  event(id, ARGV[i], ARGV[i + 1])
end
return 'ok'
