-- The three roles, where they do not exist yet; needs CREATEROLE. They belong to the cluster, hence the exceptions.
-- No statement of this file may meet what others have put into schema public or pg_temp.
SET search_path = pg_catalog, pg_temp;
DO $$
DECLARE r text;
BEGIN
  FOREACH r IN ARRAY ARRAY['outbox_producer', 'outbox_relay', 'outbox_consumer'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', r);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another migrate was first
      END;
    END IF;
  END LOOP;
END $$;
