-- id, the last event id on disk, how many to keep → how many events were removed: none that is not on disk
local id, stored, keep = unpack(ARGV)
local unstored = redis.call('XRANGE', events_key(id), '(' .. stored, '+', 'COUNT', keep + 1)
if #unstored > tonumber(keep) then return 0 end
redis.call('ZREM', PREFIX .. 'long', id)
return redis.call('XTRIM', events_key(id), 'MAXLEN', keep)
