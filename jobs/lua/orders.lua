-- id, claim → the job's orders (JSON), or 'lost'
local id, claim = unpack(ARGV)
if not holds(id, claim) then return 'lost' end
return get(id, 'orders') or '{}'
