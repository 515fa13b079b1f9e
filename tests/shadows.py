"""What a stranger may put into schema public, so that a statement that names no schema calls it: every function and operator that our SQL uses."""
import glob
import os
import re

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
SOURCES = [*glob.glob(f"{ROOT}/schema/*.sql"), *glob.glob(f"{ROOT}/schema/queries/*.sql"), *glob.glob(f"{ROOT}/relay/store/*.c"), *glob.glob(f"{ROOT}/relay/postgres/*.c")]
TYPES = ["bigint", "integer", "text", "name", "interval", "timestamp with time zone", "jsonb", "json", "boolean", "double precision", "numeric", "oid", "uuid", "bytea"]
OPERATORS = ["=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "||", "#", "&", "->", "->>", "?", "~", "!~", "~~", "!~~"]
# Those that take any type are shadowed by exact matches: so many texts, and what the schema gives them.
EXACT = {"format": [["text"] * count for count in range(1, 9)] + [["text", "name"], ["text", "bigint"], ["text", "integer", "text"]],
         "concat": [["text"] * count for count in range(1, 4)], "concat_ws": [["text"] * count for count in range(2, 8)],
         "num_nonnulls": [["json", "bytea"]], "jsonb_build_object": [["text"] * (2 * count) for count in range(1, 5)], "json_build_object": [["text", "text"]],
         "array_agg": [["text"], ["bigint"]], "jsonb_agg": [["jsonb"]], "string_agg": [["text", "text"]], "count": [["bigint"], ["text"]], "max": [["integer"], ["text"]],
         "min": [["bigint"], ["timestamptz"]], "unnest": [["text[]"], ["bigint[]"]], "array_position": [["text[]", "text"]], "row_number": [[]]}


def words():
    """The names that stand in front of a parenthesis."""
    found = set()
    for source in SOURCES:
        with open(source, encoding="utf-8") as file:
            found |= set(re.findall(r"\b([a-z_][a-z_0-9]*)\s*\(", file.read()))
    return sorted(found)


def plant(connection):
    """Makes them, as whoever this connection is; returns (functions, operators)."""
    functions = operators = 0
    with connection.cursor() as cursor:
        cursor.execute("CREATE SEQUENCE public.shadow_calls")
        cursor.execute("GRANT ALL ON SEQUENCE public.shadow_calls TO PUBLIC")
        body = "LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM pg_catalog.nextval('public.shadow_calls'); RAISE LOG 'shadow: %s'; RETURN NULL; END $$"
        cursor.execute("SELECT proname, pg_get_function_identity_arguments(oid), pg_get_function_result(oid) FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace"
                       " AND prokind = 'f' AND proname = ANY (%s) AND NOT proargtypes::oid[] && (SELECT array_agg(oid) FROM pg_type WHERE typtype = 'p')"
                       " AND prorettype NOT IN (SELECT oid FROM pg_type WHERE typtype = 'p') AND NOT proretset AND proargmodes IS NULL", (words(),))
        made = [(name, arguments, result) for name, arguments, result in cursor.fetchall()]
        made += [(name, ", ".join(types), "text") for name, all_types in EXACT.items() for types in all_types]
        for name, arguments, result in made:
            cursor.execute(f'CREATE OR REPLACE FUNCTION public."{name}"({arguments}) RETURNS {result} ' + body % name)
            functions += 1
        cursor.execute("SELECT oprname, oprleft::regtype::text, oprright::regtype::text, oprresult::regtype::text FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace"
                       " AND oprname = ANY (%s) AND oprleft <> 0 AND NOT ARRAY[oprleft, oprright, oprresult] && (SELECT array_agg(oid) FROM pg_type WHERE typtype = 'p')", (OPERATORS,))
        exact = {(name, left, right): result for name, left, right, result in cursor.fetchall()}
        for name in OPERATORS:
            for left in TYPES:
                for right in TYPES:
                    exact.setdefault((name, left, right), "boolean" if name in ("=", "<>", "<", "<=", ">", ">=", "?", "~", "!~", "~~", "!~~") else left)
        for number, ((name, left, right), result) in enumerate(sorted(exact.items())):
            cursor.execute(f"CREATE FUNCTION public.shadow_{number}({left}, {right}) RETURNS {result} " + body % ("operator " + name.replace("%", "%%")))
            cursor.execute(f"CREATE OPERATOR public.{name} (FUNCTION = public.shadow_{number}, LEFTARG = {left}, RIGHTARG = {right})")
            operators += 1
    return functions, operators


def calls(database):
    return database.value("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.shadow_calls")
