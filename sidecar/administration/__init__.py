"""Policy administration point (PAP): what is made and checked before a sidecar uses it.

`directory` builds the snapshot of people and entities, `subjects` the index of US data subjects; `rows` is how both
read their sources: strictly, naming each bad row, and writing nothing while there is one. `directory_rows` and
`designations` are those of the directory; `covered` and `covered_people` resolve covered persons (28 CFR 202.211), and
`covered_explain` says why.

`policy_replay` puts recorded questions to a candidate policy: `policy_corpus` is where they come from, `policy_children`
who answers, `policy_flips` what came of it; `policy_diff` is what two bundles say differently.

What authors of policies use: `policy_words` and `policy_source` take Rego apart, which `policy_check` (with `policy_paths`,
`policy_codes`, `policy_unused`, `policy_opa`) holds against what is known; `policy_test` runs tests and `policy_cases`;
`policy_eval` asks; `policy_explain` says why, by `policy_probes`, `policy_trace` and `policy_why`; `policy_new` starts a
service's policy from `policy_starter`. `policy_document` makes whole input documents of parts.

`papers` are drafts on their way to being signed; `exception_desk` and `authorization_desk` where that happens.
"""
