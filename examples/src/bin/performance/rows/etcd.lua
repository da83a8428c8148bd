-- The requests of wrk: random keys, 100-byte values, one request after the other on each connection.
-- Arguments: kv or etcd; put or get; the number of keys. All requests are made before the clock starts.

local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(text)
    local out = {}
    for at = 1, #text, 3 do
        local a, b, c = text:byte(at, at + 2)
        local bits = a * 65536 + (b or 0) * 256 + (c or 0)
        for place = 3, 0, -1 do
            local six = math.floor(bits / 64 ^ place) % 64
            out[#out + 1] = letters:sub(six + 1, six + 1)
        end
        if not b then out[#out - 1] = "=" end
        if not c then out[#out] = "=" end
    end
    return table.concat(out)
end

local function value_of(key)
    return key .. ("x"):rep(100 - #key)
end

local make = {
    kv = {
        put = function(key) return wrk.format("PUT", "/kv/" .. key, nil, value_of(key)) end,
        get = function(key) return wrk.format("GET", "/kv/" .. key) end,
    },
    etcd = {
        put = function(key)
            local body = ('{"key":"%s","value":"%s"}'):format(base64(key), base64(value_of(key)))
            return wrk.format("POST", "/v3/kv/put", nil, body)
        end,
        get = function(key)
            return wrk.format("POST", "/v3/kv/range", nil, ('{"key":"%s"}'):format(base64(key)))
        end,
    },
}

local requests = {}

function init(args)
    local of = make[args[1]][args[2]]
    for number = 0, tonumber(args[3]) - 1 do
        requests[number + 1] = of(("measure:%08d"):format(number))
    end
end

function request()
    return requests[math.random(#requests)]
end

-- Every status above 399 is an error to wrk; that there was no redirect is checked outside.
function done(summary, latency)
    local errors = summary.errors
    local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
    print(("result %d %d %d %d %d"):format(
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), failed))
end
