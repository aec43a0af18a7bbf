-- Which text made this file: the digest of the one that you are reading.
CREATE TABLE made (
    schema VARCHAR NOT NULL
);

-- One row per receipt; `statement` is the signed payload, byte for byte. With a primary key, each
-- receipt that is added would have all of them written again.
CREATE TABLE chain (
    seq          BIGINT NOT NULL,
    receipt_hash VARCHAR NOT NULL,
    statement    JSON NOT NULL
);

-- Accepted models and their numbers, which history alone does not give: versions can be left again.
CREATE TABLE version (
    pipeline VARCHAR NOT NULL,
    version  BIGINT NOT NULL,
    seq      BIGINT NOT NULL
);

CREATE VIEW receipts AS
SELECT
    seq,
    receipt_hash,
    p->>'prev_receipt_hash'                            AS prev_receipt_hash,
    p->>'kind'                                         AS kind,
    p->>'task_id'                                      AS task_id,
    p->>'task_name'                                    AS task_name,
    p->>'task_kind'                                    AS task_kind,
    p->>'pipeline'                                     AS pipeline,
    CAST(p->>'timestamp' AS TIMESTAMP)                 AS timestamp,
    CAST(p->>'accepted' AS BOOLEAN)                    AS accepted,
    p->>'reason'                                       AS reason,
    CAST(p->>'joules_spent' AS DECIMAL(18, 6))         AS joules_spent,
    CAST(p->>'joules_forfeited' AS DECIMAL(18, 6))     AS joules_forfeited,
    CAST(p->>'joules_train' AS DECIMAL(18, 6))         AS joules_train,
    CAST(p->>'joules_eval' AS DECIMAL(18, 6))          AS joules_eval,
    CAST(p->>'$.energy.joules_gross' AS DECIMAL(18, 6)) AS joules_gross,
    CAST(p->>'$.energy.joules_sigma' AS DECIMAL(18, 6)) AS joules_sigma,
    p->>'$.energy.provenance'                          AS provenance,
    p->>'$.energy.meter'                               AS meter,
    p->>'$.energy.baseline_label'                      AS baseline_label,
    CAST(p->>'$.energy.model.processor_watts' AS DOUBLE) AS processor_watts,
    p->>'$.energy.model.origin'                        AS processor_watts_origin,
    CAST(p->>'$.energy.duration_ms' AS BIGINT)         AS duration_ms,
    CAST(p->>'$.energy.bucket_joules' AS DECIMAL(18, 6)) AS bucket_joules,
    CAST(p->>'base_loss' AS DECIMAL(18, 9))            AS base_loss,
    CAST(p->>'new_loss' AS DECIMAL(18, 9))             AS new_loss,
    CAST(p->>'delta' AS DECIMAL(18, 9))                AS delta,
    CAST(p->>'delta_lower' AS DECIMAL(18, 9))          AS delta_lower,
    CAST(p->>'eta' AS DECIMAL(18, 9))                  AS eta,
    CAST(p->>'eta_lower' AS DECIMAL(18, 9))            AS eta_lower,
    -- Receipts that do not say it have all that it takes.
    coalesce(
        CAST(p->>'eta_gross' AS DECIMAL(18, 9)),
        CAST(CAST(delta AS DOUBLE) / nullif(CAST(joules_gross AS DOUBLE), 0) AS DECIMAL(18, 9))
    )                                                  AS eta_gross,
    CAST(p->>'$.gate.accuracy' AS DOUBLE)              AS accuracy,
    CAST(p->>'$.gate.base.accuracy' AS DOUBLE)         AS base_accuracy,
    CAST(p->>'$.gate.n' AS BIGINT)                     AS gate_rows,
    CAST(p->>'$.gate.look' AS BIGINT)                  AS look,
    CAST(p->>'$.train.steps' AS BIGINT)                AS steps,
    CAST(p->>'$.train.examples' AS BIGINT)             AS examples,
    CAST(p->>'$.index.rows' AS BIGINT)                 AS index_rows,
    p->>'adapter_hash'                                 AS adapter_hash,
    p->>'base_model_hash'                              AS base_model_hash,
    p->>'new_model_hash'                               AS new_model_hash,
    p->>'$.env.device'                                 AS device,
    p->>'node'                                         AS node
FROM (SELECT seq, receipt_hash, statement->'predicate' AS p FROM chain);

-- Every judged update: what its joules bought.
CREATE VIEW eta AS
SELECT
    seq, timestamp, pipeline, task_name, accepted, delta, delta_lower, joules_spent, joules_gross,
    joules_sigma, eta, eta_gross, eta_lower, provenance,
    sum(CASE WHEN accepted THEN delta ELSE 0 END) OVER so_far AS delta_so_far,
    sum(joules_spent) OVER so_far                              AS joules_so_far
FROM receipts
WHERE kind = 'decision' AND task_kind = 'lora'
WINDOW so_far AS (PARTITION BY pipeline, task_name ORDER BY seq);

-- Per task: joules of every receipt, also of those that bought nothing or were forfeited. Gross
-- joules are at least these: where nobody measured them, what was charged stands for them.
CREATE VIEW eta_by_task AS
SELECT
    pipeline,
    task_name,
    task_kind,
    count(*) FILTER (WHERE kind = 'decision')                     AS decisions,
    count(*) FILTER (WHERE kind = 'decision' AND accepted)        AS accepted,
    count(*) FILTER (WHERE kind = 'aborted')                      AS aborted,
    sum(coalesce(joules_spent, joules_forfeited))                 AS joules_spent,
    sum(coalesce(joules_gross, joules_spent, joules_forfeited))   AS joules_gross,
    sum(delta) FILTER (WHERE accepted)                            AS delta,
    CAST(sum(delta) FILTER (WHERE accepted) AS DOUBLE)
        / nullif(CAST(sum(coalesce(joules_spent, joules_forfeited)) AS DOUBLE), 0) AS eta,
    CAST(sum(delta) FILTER (WHERE accepted) AS DOUBLE)
        / nullif(CAST(sum(coalesce(joules_gross, joules_spent, joules_forfeited)) AS DOUBLE), 0)
                                                                  AS eta_gross
FROM receipts
WHERE kind <> 'commit'
GROUP BY pipeline, task_name, task_kind
ORDER BY eta DESC NULLS LAST;

-- Accepted models, in order.
CREATE VIEW versions AS
SELECT
    version, pipeline, seq, timestamp, new_model_hash AS model_hash, adapter_hash, base_model_hash,
    new_loss AS loss, accuracy, delta, joules_spent
FROM version JOIN receipts USING (pipeline, seq)
ORDER BY pipeline, seq;
