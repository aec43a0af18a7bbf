-- One row per receipt; `statement` is the signed payload as parsed.
CREATE TABLE IF NOT EXISTS chain (
    seq          BIGINT PRIMARY KEY,
    receipt_hash VARCHAR NOT NULL,
    statement    JSON NOT NULL
);

CREATE OR REPLACE VIEW receipts AS
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
CREATE OR REPLACE VIEW eta AS
SELECT
    seq, timestamp, pipeline, task_name, accepted, delta, delta_lower, joules_spent, joules_sigma,
    eta, eta_lower, provenance,
    sum(CASE WHEN accepted THEN delta ELSE 0 END) OVER so_far AS delta_so_far,
    sum(joules_spent) OVER so_far                              AS joules_so_far
FROM receipts
WHERE kind = 'decision' AND task_kind = 'lora'
WINDOW so_far AS (PARTITION BY pipeline, task_name ORDER BY seq);

-- Per task: joules of every receipt, also of those that bought nothing or were forfeited.
CREATE OR REPLACE VIEW eta_by_task AS
SELECT
    pipeline,
    task_name,
    task_kind,
    count(*) FILTER (WHERE kind = 'decision')                     AS decisions,
    count(*) FILTER (WHERE kind = 'decision' AND accepted)        AS accepted,
    count(*) FILTER (WHERE kind = 'aborted')                      AS aborted,
    sum(coalesce(joules_spent, joules_forfeited))                 AS joules_spent,
    sum(delta) FILTER (WHERE accepted)                            AS delta,
    CAST(sum(delta) FILTER (WHERE accepted) AS DOUBLE)
        / nullif(CAST(sum(coalesce(joules_spent, joules_forfeited)) AS DOUBLE), 0) AS eta
FROM receipts
WHERE kind <> 'commit'
GROUP BY pipeline, task_name, task_kind
ORDER BY eta DESC NULLS LAST;

-- Accepted models, in order.
CREATE OR REPLACE VIEW versions AS
SELECT
    row_number() OVER (PARTITION BY pipeline ORDER BY seq) AS version,
    pipeline, seq, timestamp, new_model_hash AS model_hash, adapter_hash, base_model_hash,
    new_loss AS loss, accuracy, delta, joules_spent
FROM receipts
WHERE kind = 'decision' AND task_kind = 'lora' AND accepted
ORDER BY pipeline, seq;
