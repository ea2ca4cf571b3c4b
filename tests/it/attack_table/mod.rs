//! The attack table: every bad input that a gateway is known to meet, by number, and how each is answered.
//!
//! Rows that are one request are [`lines`]: what is sent, the answer, and that nothing came of it. Rows that need
//! more (a pair of gateways, TLS, a flood, a peer that lies) name the tests that show them. A row without either
//! says why there is nothing to attack yet.

mod floods;
mod hellos;
mod lines;

use std::collections::BTreeSet;
use std::path::Path;

use self::Shown::{Below, By, Line, NotHere};
use crate::trust::{attacks, canary, certificates, identity, limits, pushes, revocation, signatures};
use crate::{client_tls, contract, follow, hostile, ingest, matrix};

/// How a row is shown.
enum Shown {
    /// By its lines.
    Line,
    /// By this test.
    By(fn()),
    /// By unit tests of this file, which bear its number.
    Below(&'static str),
    /// Not: what it attacks does not exist.
    NotHere(&'static str),
}

const NAMES: Shown = NotHere("there is no directory of names");
const MAILBOXES: Shown = NotHere("there are no mailboxes");
const LINKS: Shown =
    NotHere("gateways read each other's streams and send no batches: a link has no chain of its own");

/// The rows, in order.
const TABLE: [(&str, &[Shown]); 64] = [
    ("connect, send nothing", &[By(hostile::whoever_takes_too_long_over_a_head_is_cut_off)]),
    ("a head byte by byte", &[By(hostile::whoever_takes_too_long_over_a_head_is_cut_off)]),
    ("too many, too large headers, too long a target", &[Line]),
    (
        "floods of HTTP/2 frames",
        &[
            By(floods::a_flood_of_frames_costs_its_own_connection_and_no_other),
            By(floods::whoever_asks_for_answers_and_takes_none_is_not_listened_to),
        ],
    ),
    ("heads that are none", &[Line]),
    ("a body framed twice", &[By(hostile::a_body_framed_twice_is_one_request)]),
    (
        "credentials that do not hold",
        &[
            By(attacks::every_credential_that_does_not_hold_gets_the_same_401),
            By(matrix::every_operation_is_refused_to_all_but_those_the_document_names),
            By(limits::failed_logins_of_one_network_are_slowed_down_and_good_ones_are_not),
        ],
    ),
    ("a scope that is missing", &[By(attacks::a_token_does_what_its_scopes_say_and_no_more)]),
    ("too large, endless and packed bodies", &[Line, By(hostile::an_endless_body_is_cut_at_its_limit)]),
    ("bodies that are not the JSON asked for", &[Line]),
    ("an address in a body", &[By(attacks::an_address_in_a_body_is_nowhere_dialled)]),
    (
        "a peer that is not there, or not for this tenant",
        &[Line, By(attacks::a_peer_that_is_not_for_a_tenant_is_not_there)],
    ),
    ("an idempotency key that is none", &[Line]),
    ("a key with another body", &[Line]),
    ("a key whose request is under way", &[By(contract::every_answer_is_what_the_document_says)]),
    ("the key of another tenant", &[By(attacks::two_tenants_never_meet_by_key_by_run_or_by_principal)]),
    ("creates over a quota", &[By(attacks::a_hundred_creates_over_a_quota_of_ten_make_ten_runs)]),
    ("a cursor that is none", &[Line]),
    (
        "a cursor beyond either end",
        &[Line, By(follow::a_cursor_below_what_retention_kept_is_refused_or_shown_as_a_gap)],
    ),
    (
        "another tenant's run",
        &[
            By(attacks::two_tenants_never_meet_by_key_by_run_or_by_principal),
            By(matrix::every_operation_is_refused_to_all_but_those_the_document_names),
        ],
    ),
    ("a Last-Event-ID that is none", &[Line]),
    ("a representation there is not", &[Line]),
    (
        "one stream too many",
        &[
            By(follow::open_streams_are_counted_per_principal_and_in_all),
            By(contract::every_answer_is_what_the_document_says),
        ],
    ),
    (
        "a subscriber that does not read",
        &[By(follow::a_subscriber_that_does_not_read_is_cut_and_harms_nobody)],
    ),
    (
        "streams opened and given up",
        &[
            By(hostile::streams_that_are_given_up_give_their_places_back),
            By(limits::a_principal_that_asks_too_much_hears_when_to_come_back_and_others_do_not),
        ],
    ),
    ("a ticket twice, late, elsewhere", &[By(attacks::a_stream_ticket_opens_one_run_once_within_a_minute)]),
    (
        "other methods, ids that are none",
        &[Line, By(contract::a_path_takes_its_documented_methods_and_no_other)],
    ),
    (
        "certificates of strangers, of yesterday, of another",
        &[
            By(certificates::whoever_does_not_show_an_enrolled_certificate_gets_no_answer),
            By(certificates::a_peer_enrolled_by_name_comes_in_with_a_certificate_of_our_authority),
            By(signatures::a_certificate_and_a_signature_of_two_peers_admit_nobody),
            Below("src/tls/tests/peers.rs"),
        ],
    ),
    (
        "a peer that is revoked",
        &[By(revocation::a_revoked_peer_is_cut_off_within_a_second_and_loses_nothing_by_it)],
    ),
    (
        "older TLS, no TLS, sessions resumed",
        &[
            By(certificates::the_door_speaks_tls_13_and_nothing_else),
            By(certificates::no_session_is_resumed),
            By(client_tls::what_is_not_tls_1_3_is_refused_and_the_gateway_goes_on),
        ],
    ),
    (
        "a second gateway of one id",
        &[By(identity::an_id_belongs_to_one_key_and_whoever_takes_it_is_refused_and_audited)],
    ),
    ("half a signature, of nobody, of another kind", &[SIGNED]),
    ("a signature that covers too little", &[SIGNED]),
    ("a body or a digest that was changed", &[SIGNED, Below("src/protocol/signature/digest.rs")]),
    ("a signature of another time", &[SIGNED]),
    ("a request sent again", &[By(signatures::a_signed_request_is_taken_once_by_one_gateway)]),
    ("several signatures", &[SIGNED]),
    (
        "keys and signatures with two forms",
        &[
            By(signatures::a_signature_or_a_key_with_a_second_form_is_refused),
            Below("src/domain/key_tests.rs"),
        ],
    ),
    (
        "a peer's absurd word of itself",
        &[
            By(hellos::what_a_peer_says_of_itself_is_bounded_and_not_believed_blindly),
            By(hellos::a_peer_that_takes_nothing_is_sent_nothing),
        ],
    ),
    ("an event of another origin", &[By(pushes::an_event_that_names_another_origin_is_refused)]),
    ("a batch with a gap, a fork, a step back", &[LINKS]),
    (
        "one event id, two contents",
        &[By(ingest::what_contradicts_the_log_is_set_aside_and_audited_and_the_first_stays)],
    ),
    ("an event id that breaks a frame", &[By(hostile::an_event_is_stored_as_it_is_or_not_at_all)]),
    ("data that looks like frames", &[By(hostile::an_event_is_stored_as_it_is_or_not_at_all)]),
    ("a circle, or too long a way", &[By(attacks::a_signed_request_that_came_too_long_a_way_is_refused)]),
    ("SQL, and pages without end", &[Line]),
    ("a redirect inside", &[By(hostile::a_peer_that_answers_a_create_with_nonsense_harms_nobody)]),
    (
        "a peer's name for an address inside",
        &[By(attacks::a_peer_is_dialled_at_addresses_its_entry_grants_and_nowhere_else)],
    ),
    ("an address that changes after the check", &[Below("src/outbound/resolver_tests.rs")]),
    ("garbage in a peer's stream", &[By(hostile::garbage_in_a_peers_stream_is_set_aside)]),
    (
        "a peer's stream that is none",
        &[By(hostile::a_peers_stream_that_is_none_or_says_nothing_is_opened_again_calmly)],
    ),
    (
        "a peer's stream that says nothing",
        &[By(hostile::a_peers_stream_that_is_none_or_says_nothing_is_opened_again_calmly)],
    ),
    (
        "another's run id, an answer without end",
        &[By(hostile::a_peer_that_answers_a_create_with_nonsense_harms_nobody)],
    ),
    ("names that look like others", &[NAMES]),
    ("an old fence", &[NAMES]),
    ("a record of tomorrow", &[NAMES]),
    ("a message too large, a box too deep", &[MAILBOXES]),
    ("an ack of another's delivery", &[MAILBOXES]),
    ("a forged receipt", &[MAILBOXES]),
    (
        "an operator's path on the public door",
        &[By(attacks::what_operators_do_is_no_clients_business_and_not_there_on_the_public_door)],
    ),
    (
        "streams open while they are revoked",
        &[
            By(revocation::fifty_streams_of_a_revoked_token_end_within_a_second_and_say_why),
            By(revocation::a_revoked_peer_is_cut_off_within_a_second_and_loses_nothing_by_it),
        ],
    ),
    (
        "what a terminal or a header would obey",
        &[Line, By(hostile::what_is_echoed_is_an_id_or_replaced), By(canary::no_secret_is_written_anywhere)],
    ),
    (
        "names that would make time series",
        &[
            By(hostile::odd_paths_and_names_make_no_new_time_series),
            By(attacks::strangers_with_any_names_and_keys_make_no_time_series),
        ],
    ),
    (
        "probes with a body, pages for nobody",
        &[Line, By(hostile::probes_take_no_body_and_the_document_names_no_host)],
    ),
];

const SIGNED: Shown = By(signatures::a_signature_that_is_not_exactly_right_is_refused_and_does_nothing);

#[test]
fn every_row_is_shown_or_says_why_it_cannot_be() {
    let lines: BTreeSet<usize> = lines::lines().iter().map(|line| usize::from(line.row)).collect();
    let mut said = BTreeSet::new();
    for (row, (what, shown)) in (1..).zip(&TABLE) {
        assert!(!shown.is_empty(), "row {row} ({what}) is shown by nothing");
        let mut tests = BTreeSet::new();
        for shown in *shown {
            match shown {
                Line => drop(said.insert(row)),
                By(test) => assert!(tests.insert(*test as usize), "row {row} ({what}) names a test twice"),
                Below(file) => {
                    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
                    let number = format!("reliability 4d.{row}");
                    assert!(text.is_ok_and(|text| text.contains(&number)), "{file} does not bear {number}");
                }
                NotHere(reason) => assert!(!reason.is_empty(), "row {row} ({what}) is left out for nothing"),
            }
        }
    }
    assert_eq!(lines, said, "the rows that have lines, and those that say so");
}
