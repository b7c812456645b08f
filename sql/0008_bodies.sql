-- Step 8: bodies of messages out of rows. How a value is written, where it is not as to_jsonb has it: as
-- django.core.serializers does it.

CREATE FUNCTION walpost.body_timestamptz(value timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN value >= '0001-01-01 00:00:00+00' AND value < '10000-01-01 00:00:00+00' THEN
        to_char(value AT TIME ZONE 'UTC', CASE
            WHEN date_trunc('second', value) = value THEN 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
            ELSE 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"' END)
    ELSE to_jsonb(value) #>> '{}' END;

CREATE FUNCTION walpost.body_timestamp(value timestamp) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE
    WHEN value >= '0001-01-01 00:00:00' AND value < '10000-01-01 00:00:00' THEN
        to_char(value, CASE
            WHEN date_trunc('second', value) = value THEN 'YYYY-MM-DD"T"HH24:MI:SS'
            ELSE 'YYYY-MM-DD"T"HH24:MI:SS.MS' END)
    ELSE to_jsonb(value) #>> '{}' END;

CREATE FUNCTION walpost.body_time(value time) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_char(value::interval, CASE
    WHEN date_trunc('second', value::interval) = value::interval THEN 'HH24:MI:SS'
    ELSE 'HH24:MI:SS.MS' END);

-- As Python's timedelta: whole days, which may be negative, and the rest. A month has 30 days, a year 365.
CREATE FUNCTION walpost.body_interval(value interval) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    day   CONSTANT numeric := 86400000000;
    total numeric;
    rest  numeric;
BEGIN
    IF NOT isfinite(value) THEN
        RETURN value::text;
    END IF;
    total := day * (365 * extract(year FROM value) + 30 * extract(month FROM value) + extract(day FROM value))
        + 3600000000 * extract(hour FROM value) + 60000000 * extract(minute FROM value)
        + extract(microseconds FROM value);
    rest := total - day * floor(total / day);
    RETURN CASE WHEN total <> rest THEN floor(total / day)::bigint || ' ' ELSE '' END
        || to_char((rest::bigint / 1000000) * interval '1 second', 'HH24:MI:SS')
        || CASE WHEN rest % 1000000 <> 0 THEN '.' || lpad((rest % 1000000)::bigint::text, 6, '0') ELSE '' END;
END
$$;

CREATE FUNCTION walpost.body_bytea(value bytea) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN translate(encode(value, 'base64'), E'\n', '');

-- An array of such values, of any dimensions, out of what to_jsonb has made of it.
CREATE FUNCTION walpost.body_array(value jsonb, element regtype) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    plain text := value #>> '{}';
BEGIN
    IF jsonb_typeof(value) = 'array' THEN
        RETURN coalesce(
            (SELECT jsonb_agg(walpost.body_array(item, element) ORDER BY place)
             FROM jsonb_array_elements(value) WITH ORDINALITY AS items (item, place)), '[]');
    END IF;
    RETURN to_jsonb(CASE element
        WHEN 'timestamptz'::regtype THEN walpost.body_timestamptz(plain::timestamptz)
        WHEN 'timestamp'::regtype THEN walpost.body_timestamp(plain::timestamp)
        WHEN 'time'::regtype THEN walpost.body_time(plain::time)
        WHEN 'interval'::regtype THEN walpost.body_interval(plain::interval)
        WHEN 'bytea'::regtype THEN walpost.body_bytea(plain::bytea)
        ELSE plain END);
END
$$;

-- The expression for a value of this type; null: the value itself, which is written as to_jsonb has it.
CREATE FUNCTION walpost.body_expression(type oid, value text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base    oid := type;
    element oid;
    special CONSTANT oid[] := '{numeric,timestamptz,timestamp,time,interval,bytea}'::regtype[];
BEGIN
    LOOP
        SELECT CASE typtype WHEN 'd' THEN typbasetype ELSE oid END,
            CASE WHEN typcategory = 'A' THEN typelem ELSE 0 END
        INTO STRICT type, element FROM pg_type WHERE oid = base;
        EXIT WHEN type = base;
        base := type;
    END LOOP;
    IF element <> 0 THEN
        LOOP
            SELECT CASE typtype WHEN 'd' THEN typbasetype ELSE oid END
            INTO STRICT type FROM pg_type WHERE oid = element;
            EXIT WHEN type = element;
            element := type;
        END LOOP;
        RETURN CASE WHEN element = ANY (special) THEN
            format('walpost.body_array(pg_catalog.to_jsonb(%s), %L)', value, element::regtype) END;
    END IF;
    RETURN CASE base::regtype
        WHEN 'numeric'::regtype THEN format('%s::pg_catalog.text', value)
        WHEN 'timestamptz'::regtype THEN format('walpost.body_timestamptz(%s)', value)
        WHEN 'timestamp'::regtype THEN format('walpost.body_timestamp(%s)', value)
        WHEN 'time'::regtype THEN format('walpost.body_time(%s)', value)
        WHEN 'interval'::regtype THEN format('walpost.body_interval(%s)', value)
        WHEN 'bytea'::regtype THEN format('walpost.body_bytea(%s)', value)
    END;
END
$$;
