-- What role, database and server may have set otherwise, and what our statements rely on: visibility, formats of text, lexing, plans. $1: only for this
-- transaction (behind a pooler, where the session is others', too). Time runs in limits_set.sql and guards.sql; what plans the loop wants, in guards.sql.
SELECT pg_catalog.concat(
       pg_catalog.set_config('row_security', 'off', $1::boolean), -- a policy that would hide rows is an error
       pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', $1::boolean),
       pg_catalog.set_config('standard_conforming_strings', 'on', $1::boolean), pg_catalog.set_config('array_nulls', 'on', $1::boolean),
       pg_catalog.set_config('transform_null_equals', 'off', $1::boolean), pg_catalog.set_config('quote_all_identifiers', 'off', $1::boolean),
       pg_catalog.set_config('datestyle', 'ISO, MDY', $1::boolean), pg_catalog.set_config('intervalstyle', 'postgres', $1::boolean),
       pg_catalog.set_config('timezone', 'UTC', $1::boolean), pg_catalog.set_config('extra_float_digits', '1', $1::boolean),
       pg_catalog.set_config('bytea_output', 'hex', $1::boolean), pg_catalog.set_config('exit_on_error', 'off', $1::boolean),
       pg_catalog.set_config('default_transaction_isolation', 'read committed', $1::boolean),
       pg_catalog.set_config('default_transaction_read_only', 'off', $1::boolean),
       pg_catalog.set_config('default_transaction_deferrable', 'off', $1::boolean),
       pg_catalog.set_config('plan_cache_mode', 'force_custom_plan', $1::boolean), pg_catalog.set_config('jit', 'off', $1::boolean),
       pg_catalog.set_config('max_parallel_workers_per_gather', '0', $1::boolean), pg_catalog.set_config('work_mem', '4MB', $1::boolean),
       pg_catalog.set_config('hash_mem_multiplier', '2', $1::boolean), pg_catalog.set_config('effective_cache_size', '4GB', $1::boolean),
       pg_catalog.set_config('seq_page_cost', '1', $1::boolean), pg_catalog.set_config('random_page_cost', '4', $1::boolean),
       pg_catalog.set_config('cpu_tuple_cost', '0.01', $1::boolean), pg_catalog.set_config('cpu_index_tuple_cost', '0.005', $1::boolean),
       pg_catalog.set_config('cpu_operator_cost', '0.0025', $1::boolean), pg_catalog.set_config('from_collapse_limit', '8', $1::boolean),
       pg_catalog.set_config('join_collapse_limit', '8', $1::boolean), pg_catalog.set_config('enable_indexscan', 'on', $1::boolean),
       pg_catalog.set_config('enable_indexonlyscan', 'on', $1::boolean), pg_catalog.set_config('enable_nestloop', 'on', $1::boolean),
       pg_catalog.set_config('enable_sort', 'on', $1::boolean), pg_catalog.set_config('enable_incremental_sort', 'on', $1::boolean),
       pg_catalog.set_config('enable_material', 'on', $1::boolean), pg_catalog.set_config('enable_memoize', 'on', $1::boolean),
       pg_catalog.set_config('enable_hashagg', 'on', $1::boolean), pg_catalog.set_config('enable_tidscan', 'on', $1::boolean),
       pg_catalog.set_config('enable_seqscan', 'on', $1::boolean), pg_catalog.set_config('enable_bitmapscan', 'on', $1::boolean),
       pg_catalog.set_config('enable_hashjoin', 'on', $1::boolean), pg_catalog.set_config('enable_mergejoin', 'on', $1::boolean),
       -- Of newer servers, and of security updates of older ones: it may forbid views.
       CASE WHEN pg_catalog.current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL
            THEN pg_catalog.set_config('restrict_nonsystem_relation_kind', '', $1::boolean) END,
       -- Between transactions nothing is at stake, and an idle relay has no reason to connect anew.
       CASE WHEN NOT $1::boolean THEN pg_catalog.set_config('idle_session_timeout', '0', false) END)
