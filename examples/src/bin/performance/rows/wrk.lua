-- Sends requests out of a file, at random. Arguments: the file, and the bytes of each of them.
-- They are made before, and read in one go: wrk starts its first thread while it still prepares the second.

local threads = 0
local requests, bytes

function setup(thread)
    threads = threads + 1
    thread:set("number", threads)
end

function init(args)
    local file = assert(io.open(args[1], "rb"))
    requests = file:read("*a")
    file:close()
    bytes = tonumber(args[2])
    math.randomseed(os.time() + number)
end

function request()
    local at = math.random(0, #requests / bytes - 1) * bytes
    return requests:sub(at + 1, at + bytes)
end

-- Every status above 399 is an error to wrk; that there was no redirect is checked outside.
function done(summary, latency)
    local errors = summary.errors
    local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
    print(("result %d %d %d %d %d"):format(
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), failed))
end
