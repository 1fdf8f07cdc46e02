"""What the reference pages for policy authors say of each path, reason code and obligation."""

_NOBODY = "nobody who can be judged"
_NOT_ALLOWED = "not allowed"
_LAPSED = "as lapsed"
_NO_VALUE = "no value to compare with"

PATHS: dict[str, tuple[str, str]] = {
    "version": ("which input document this is", ""),
    "subject.kind": (
        (
            "`personnel`: a person at work, behind a tool or service; `workload`: a service acting for nobody; "
            "`data_subject`: a user of the platform reaching their own data. It follows from the token's issuer, never from "
            "a failed look-up"
        ),
        f"{_NOBODY}: `unidentified_person`",
    ),
    "subject.person.id": (
        "personnel id. For other kinds every `subject.person` path is null or empty",
        "`unidentified_person`",
    ),
    "subject.person.us_personnel": (
        "the operator's own predicate: vetting, engagement and location, never nationality",
        "is not US personnel",
    ),
    "subject.person.location.country": (
        "where the person is now, ISO 3166-1 alpha-2",
        f"{_NOT_ALLOWED}: `person_location`",
    ),
    "subject.person.location.source": ("who says so, such as a badge reader", _NO_VALUE),
    "subject.person.location.as_of": ("since when that is known", _NO_VALUE),
    "subject.person.legal_status": ("for 28 CFR 202.256 only; shown as the basis of `covered_person`", "unresolved"),
    "subject.person.primary_residence": ("the same", "unresolved"),
    "subject.person.citizenships": ("the same", ""),
    "subject.person.covered_person.value": (
        "28 CFR 202.211, resolved when the directory is built; `unknown` weighs as `yes`",
        "",
    ),
    "subject.person.covered_person.basis": ("on which ground", _NO_VALUE),
    "subject.person.covered_person.as_of": ("when it was resolved", _NO_VALUE),
    "subject.person.roles": ("from the directory; a token can only take roles away", ""),
    "subject.person.training[].id": ("a course", ""),
    "subject.person.training[].until": ("the instant to which it counts", ""),
    "subject.person.vetted_until": ("the instant to which vetting counts", _LAPSED),
    "subject.person.status": ("such as `active`", "not active"),
    "subject.engagement.type": (
        "`employment`, `vendor`, `investment`, `brokerage`",
        "no engagement; `dsp_status_unknown` where 28 CFR part 202 asks",
    ),
    "subject.engagement.counterparty": ("with whom the agreement is", "nobody's"),
    "subject.engagement.group": ("what volumes add up over (28 CFR 202.205)", "not counted"),
    "subject.engagement.agreement_ref": ("the agreement", "no agreement on file"),
    "subject.engagement.onward_clause_ref": (
        "its clause against onward transfer (28 CFR 202.302(a)(1))",
        "`dsp_onward_terms_missing` where it is asked for",
    ),
    "subject.engagement.from": ("beginning of the engagement", "not in force"),
    "subject.engagement.until": ("end of the engagement", "not in force"),
    "subject.authentication.aal": (
        "authenticator assurance level (NIST SP 800-63B): 1, 2 or 3",
        "`authentication_insufficient`",
    ),
    "subject.authentication.methods": ("RFC 8176 methods", ""),
    "subject.authentication.time": ("when the person authenticated", "`authentication_insufficient`"),
    "subject.workload.id": (
        "verified identity of the calling service: SPIFFE id or name in its certificate",
        "`unidentified_workload`",
    ),
    "subject.workload.operated_from": ("the country it is registered to be operated from", _NOT_ALLOWED),
    "subject.workload.may": ("actions it is registered for", ""),
    "subject.delegation": ("who acts for whom: RFC 8693 `act` chain, nearest first", ""),
    "subject.source": ("where the attributes came from", _NO_VALUE),
    "subject.as_of": ("how fresh they are", "`stale_directory`"),
    "action.name": (
        "one of the actions below; writing and deleting are accesses too (28 CFR 202.201)",
        "`undescribed_method`",
    ),
    "action.service": ("full protobuf name of the guarded service", "`undescribed_method`"),
    "action.method": ("name of the method, without its service", "`undescribed_method`"),
    "resource.type": ("the word of the method's annotation, such as `profile`", _NO_VALUE),
    "resource.categories": ("categories of data in the message; a field nobody described has `unclassified`", ""),
    "resource.classes": ("classes of the fields in the message; a field without one is `protected`", ""),
    "resource.listed_identifiers": ("letters of the listed identifiers in it (28 CFR 202.234)", ""),
    "resource.computed": ("computed categories in it", ""),
    "resource.subjects.us": ("how many US data subjects the message names", ""),
    "resource.subjects.non_us": ("how many known others", ""),
    "resource.subjects.unknown": ("how many of whom nobody knows; they count as US", ""),
    "resource.subjects.own": ("how many of them are the caller", ""),
    "resource.subjects.pending": (
        "the subjects show in the answer only, and this is the request: nothing leaves before the response phase has decided",
        "",
    ),
    "resource.flags": ("`in_listed_area`, `marketed_as_government` (28 CFR 202.222)", ""),
    "resource.dataset.id": ("the data set that the grant reaches", "no population is known"),
    "resource.dataset.population.<category>": (
        "how many persons (devices for `precise_geolocation`) it holds",
        "as bulk for covered persons",
    ),
    "resource.location.country": ("where the data is stored, by configuration", "`storage_not_allowed`"),
    "resource.location.provider": ("at which provider", "`storage_not_allowed`"),
    "resource.location.region": ("in which of its regions", "`storage_not_allowed`"),
    "context.purpose": ("closed code of what for", "none is stated: `purpose_not_allowed`"),
    "context.justification": ("closed code of why", "none is given"),
    "context.ticket": ("ticket, in the form the settings ask for", "`ticket_missing` where one is needed"),
    "context.exceptions[].id": (
        "a verified, unexpired grant that names this person; only the sidecar puts one here",
        "",
    ),
    "context.exceptions[].person": ("whom it names", ""),
    "context.exceptions[].scope.services": ("services it covers; an empty list covers nothing", ""),
    "context.exceptions[].scope.categories": ("categories it covers", ""),
    "context.exceptions[].scope.subjects": ("`us`, `unknown` or `non_us`", ""),
    "context.exceptions[].justification": ("closed code of why", ""),
    "context.exceptions[].ticket": ("the ticket it belongs to", ""),
    "context.exceptions[].not_before": ("beginning", ""),
    "context.exceptions[].expires": ("end", ""),
    "context.exceptions[].requested_by": ("who asked for it", ""),
    "context.exceptions[].approvers": ("whose signatures were verified", ""),
    "context.exceptions[].max_records": ("most records it releases", "it sets no limit"),
    "context.authorizations[].id": ("an exemption, licence or advisory opinion (28 CFR part 202); never inferred", ""),
    "context.authorizations[].kind": ("which of them", ""),
    "context.authorizations[].paragraph": ("paragraph or number", ""),
    "context.authorizations[].persons": ("whom it covers", ""),
    "context.authorizations[].services": ("services it covers", ""),
    "context.authorizations[].categories": ("categories it covers", ""),
    "context.authorizations[].purposes": ("purposes it covers", ""),
    "context.authorizations[].owner": ("who answers for it", ""),
    "context.authorizations[].expires": ("end", ""),
    "context.security_requirements.version": (
        "CISA requirements attested for this service (28 CFR 202.248)",
        "not met",
    ),
    "context.security_requirements.attested_at": ("when", "not met"),
    "context.security_requirements.valid_until": ("until when", "not met"),
    "context.exposure.<category>": (
        "distinct US persons (devices for `precise_geolocation`) that the counterparty group has reached in twelve months, this call included",
        "`dsp_status_unknown` for a covered or unresolved person",
    ),
    "context.network.destination.country": (
        "where the answer goes: configuration or the peer's registration, never metadata",
        "`destination_not_allowed`",
    ),
    "context.network.destination.provider": ("at which provider", _NO_VALUE),
    "context.network.destination.region": ("in which of its regions", _NO_VALUE),
    "context.time": ("the only clock, rounded down to the minute", ""),
    "context.phase": ("`request`: before anything is forwarded; `response`: before an answer leaves", ""),
}
"""Path below `input` -> what it means, and what a policy must take null for."""

DECISION = {
    "effect": "`permit` or `deny`",
    "reasons": "at least one `{code, message, rule}`. A deny lists every rule that denies, with codes of `reasons.md`; a permit names the "
    "rule that permitted. The first one is what a caller is told",
    "obligations": "what the sidecar must do for the permit to hold: `obligations.md`",
    "advice": "texts for the operator; nothing depends on them",
    "ttl_seconds": "how long an equal question may be answered from memory; 0: never",
}

_IDENTITY = "look at token, certificate and directory: `sidecar status`"
_DIRECTORY = "correct the person's row and run `sidecar directory build`"
_DSP = "nothing: 28 CFR part 202 is not the caller's to mend"

REASONS: dict[str, tuple[str, str, str]] = {
    "unidentified_person": (
        "A person is needed and none is known: no id, a kind nobody knows, or nobody of that name in the directory.",
        "sign in; ask to be entered in the directory",
        _IDENTITY,
    ),
    "unidentified_workload": (
        "The calling service is not known.",
        "present the certificate it was issued",
        "register it under `identity.workloads`",
    ),
    "authentication_insufficient": (
        "Too weak (below `min_aal`) or too long ago.",
        "sign in again, with a second factor",
        "check what the identity provider puts into `acr`, `amr` and `auth_time`",
    ),
    "undescribed_method": (
        "Nothing says what the method reaches.",
        "nothing",
        "annotate it or describe it in the overlay: `sidecar describe`",
    ),
    "unclassified_data": (
        "A field has no category, or nothing says which categories the call reaches.",
        "nothing",
        "give the field a category, or list the service in `redact_unclassified`",
    ),
    "stale_directory": (
        "What is known of the person is older than the bound.",
        "try again later",
        "run `sidecar directory build`, at least as often as `identity.directory.max_age`",
    ),
    "policy_error": (
        "No rule could be worked out, or the answer was late or not of the form. The sidecar says so too when the policy is older than `policy.max_age`.",
        "try again later, with the call id",
        "`sidecar policy explain --record CALL_ID`",
    ),
    "obligation_unfulfillable": (
        "The permit came with a duty that nobody here knows, or that this door cannot fulfil. Said by the sidecar.",
        "nothing",
        "`sidecar policy check`, and `obligations.md` for the doors",
    ),
    "not_us_personnel": (
        "Protected data of US subjects, and the person is not US personnel or nobody knows.",
        "ask US personnel, or for an exception",
        _DIRECTORY,
    ),
    "personnel_ineligible": (
        "Vetting, training, status, engagement or role is missing or has lapsed.",
        "renew what has lapsed",
        _DIRECTORY,
    ),
    "person_location": (
        "The person is in a place without access, or in an unknown one.",
        "call from an allowed place, or ask for an exception",
        "`locations` in `data/personnel`; correct the location in the directory",
    ),
    "subjects_unknown": (
        "Nobody knows whose data it is, or US and other subjects are mixed in one message.",
        "narrow the request",
        "renew the subject index; list the service in `drop_mixed` if answers may be thinned out",
    ),
    "class_not_allowed": (
        "The class of the data is not open to this caller: a lane's condition does not hold, or a service is operated from elsewhere.",
        "ask with the purpose and in the amount that the lane serves",
        "`data/classes`; registration of the service",
    ),
    "action_not_allowed": (
        "The service is not registered for the action, or the purpose does not serve it.",
        "ask for what the purpose serves",
        "`may` of the workload; `actions` of the purpose",
    ),
    "purpose_not_allowed": (
        "No purpose, one that is not on the list, or one that does not serve the category or class.",
        "state the right `x-customhouse-purpose`",
        "`data/purposes`; the advice of the decision names the category",
    ),
    "ticket_missing": (
        "The purpose needs a ticket for this data.",
        "send `x-customhouse-ticket`",
        "`record.ticket_pattern` says which tickets count",
    ),
    "approval_required": (
        "Two approvals are outstanding; nothing else denies.",
        "ask for a grant, then send `x-customhouse-exception`",
        "approve or refuse the request",
    ),
    "exception_invalid": (
        "A grant was presented that would have lifted every reason, had it held here.",
        "ask for one that fits person, ticket, scope and time",
        "look at the grant's scope and window",
    ),
    "volume_limit": (
        "More subjects in one message than the purpose serves.",
        "ask in smaller parts",
        "`max_subjects` of the purpose",
    ),
    "destination_not_allowed": (
        "The answer would leave for a place that is not on the list, or for an unknown one.",
        "call from a place that is",
        "`data/regions`; `destination` of the settings",
    ),
    "storage_not_allowed": (
        "The data is served from a place that is not on the list.",
        "nothing",
        "`data/regions`; `upstream.location` of the settings",
    ),
    "dsp_status_unknown": (
        "28 CFR part 202 asks for something that nobody knows: covered status, agreement, exposure or population.",
        _DSP,
        "complete the directory; run the ledger; register the data set",
    ),
    "dsp_government_related": (
        "Government-related data (202.222), in any volume.",
        _DSP,
        "an authorization is the only thing that lifts it",
    ),
    "dsp_bulk": (
        "More than the bulk threshold (202.205), this call included.",
        _DSP,
        "an authorization, or the security requirements where 202.401 lets them suffice",
    ),
    "dsp_security_requirements_unmet": (
        "A restricted transaction without the security requirements (202.401).",
        _DSP,
        "attest them for the service",
    ),
    "dsp_prohibited_omic": (
        "Bulk human 'omic data (202.303).",
        _DSP,
        "an authorization is the only thing that lifts it",
    ),
    "dsp_prohibited_brokerage": (
        "Data brokerage with a covered person (202.301).",
        _DSP,
        "an authorization is the only thing that lifts it",
    ),
    "dsp_onward_terms_missing": (
        "Brokerage with another foreign person without a clause against onward transfer (202.302).",
        _DSP,
        "record the clause in the engagement",
    ),
    "dsp_authorization_invalid": (
        "An authorization was presented that does not hold here.",
        _DSP,
        "look at its persons, services, categories, purposes and end",
    ),
    "migration_window": (
        "A place is allowed only while a migration window is open. The shipped policy says it with permits.",
        "nothing",
        "close the window when the migration is done",
    ),
    "not_own_record": (
        "A user of the platform reaches for records that are not all their own.",
        "ask for your own",
        "nothing: this is the mission",
    ),
    "record_unavailable": (
        "The decision could not be recorded, so nothing was forwarded. Said by the sidecar.",
        "try again after the time in RetryInfo",
        "spool and store: `sidecar status`",
    ),
}
"""Code -> when, what the caller does, what the operator does."""

_PROXY = "`proxy`"
OBLIGATIONS: dict[str, tuple[str, str, dict[str, object]]] = {
    "redact_fields": (
        "Clears every field of these categories, or named by full path `package.Message.field`, from answers. What is cleared counts as redacted in the outcome record.",
        _PROXY,
        {"categories": ["id_government", "personal_financial"], "fields": []},
    ),
    "mask_fields": (
        "Leaves only the last four characters of such fields. A masked identifier is still a listed one (28 CFR 202.234(a)): this mitigates nothing there.",
        _PROXY,
        {"categories": ["id_contact"], "fields": []},
    ),
    "drop_records": ("Removes every record of a subject of this class from answers.", _PROXY, {"subjects": "us"}),
    "limit_records": ("Releases at most this many records in the whole call.", _PROXY, {"max": 3}),
    "require_durability": (
        "Raises the level that the decision record must reach before anything is forwarded: `written`, `committed` (the default for people), `acknowledged` by the store. Never lowers it.",
        "all",
        {"level": "acknowledged"},
    ),
    "recheck_seconds": ("An open stream is decided again after so many seconds.", _PROXY, {"seconds": 30}),
}
"""Id -> what it does, which doors fulfil it, an example of its fields."""
