-- id, the job that tried it again as the record on disk says, or '' → 1 when the record on disk is whole
local id, retried_as = unpack(ARGV)
if (get(id, 'retried_as') or '') ~= retried_as then return 0 end
redis.call('ZREM', PREFIX .. 'unarchived', id)
return 1
