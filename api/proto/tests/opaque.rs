//! Opaque bodies against the structured twins and against hostile bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_proto::decoded::failure::FailureInfo;
use holdfast_proto::walk::{MAX_DEPTH, WalkError, walk_failure};
use holdfast_proto::workflowservice::StartWorkflowExecutionRequest;
use holdfast_proto::{common, decoded, failure};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use prost::{DecodeError, Message};

fn payload() -> impl Strategy<Value = decoded::Payload> {
    let bytes = || vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    (btree_map(".{0,8}", bytes(), 0..4), bytes(), vec(any::<i64>(), 0..3)).prop_map(
        |(metadata, data, sizes)| decoded::Payload {
            metadata,
            data,
            external_payloads: sizes
                .into_iter()
                .map(|size_bytes| decoded::payload::ExternalPayloadDetails { size_bytes })
                .collect(),
        },
    )
}

fn payloads() -> impl Strategy<Value = decoded::Payloads> {
    vec(payload().prop_map(|payload| common::Payload::encode_from(&payload)), 0..4)
        .prop_map(|payloads| decoded::Payloads { payloads })
}

fn fields() -> impl Strategy<Value = BTreeMap<String, common::Payload>> {
    btree_map(".{0,8}", payload().prop_map(|payload| common::Payload::encode_from(&payload)), 0..4)
}

fn info() -> impl Strategy<Value = FailureInfo> {
    let details =
        || proptest::option::of(payloads().prop_map(|it| common::Payloads::encode_from(&it)));
    prop_oneof![
        (".{0,9}", any::<bool>(), details(), any::<Option<(i64, i32)>>(), any::<i32>()).prop_map(
            |(r#type, non_retryable, details, delay, category)| {
                FailureInfo::ApplicationFailureInfo(failure::ApplicationFailureInfo {
                    r#type,
                    non_retryable,
                    details,
                    next_retry_delay: delay
                        .map(|(seconds, nanos)| prost_types::Duration { seconds, nanos }),
                    category,
                })
            }
        ),
        (any::<i32>(), details()).prop_map(|(timeout_type, last_heartbeat_details)| {
            FailureInfo::TimeoutFailureInfo(failure::TimeoutFailureInfo {
                timeout_type,
                last_heartbeat_details,
            })
        }),
        (any::<i64>(), ".{0,9}", ".{0,9}").prop_map(|(scheduled_event_id, identity, name)| {
            FailureInfo::ActivityFailureInfo(failure::ActivityFailureInfo {
                scheduled_event_id,
                identity,
                activity_type: Some(common::ActivityType { name }),
                ..Default::default()
            })
        }),
    ]
}

fn failures() -> impl Strategy<Value = decoded::Failure> {
    let one = (
        ".{0,9}",
        ".{0,9}",
        ".{0,9}",
        proptest::option::of(payload()),
        proptest::option::of(info()),
    );
    vec(one, 1..5).prop_map(|chain| {
        let mut outermost = decoded::Failure::default();
        for (at, (message, source, stack_trace, attributes, failure_info)) in
            chain.into_iter().enumerate()
        {
            outermost = decoded::Failure {
                message,
                source,
                stack_trace,
                encoded_attributes: attributes.map(|it| common::Payload::encode_from(&it)),
                cause: (at > 0).then(|| failure::Failure::encode_from(&outermost)),
                failure_info,
            };
        }
        outermost
    })
}

/// A field that no declaration knows: tags from 1000 on, any wire type but groups.
fn unknown_field() -> impl Strategy<Value = Vec<u8>> {
    let key = |tag: u32, wire: u64| {
        let mut field = Vec::new();
        prost::encoding::encode_varint(u64::from(tag) << 3 | wire, &mut field);
        field
    };
    let value = prop_oneof![
        any::<u64>().prop_map(|number| {
            let mut value = Vec::new();
            prost::encoding::encode_varint(number, &mut value);
            (0, value)
        }),
        any::<[u8; 8]>().prop_map(|value| (1, value.to_vec())),
        any::<[u8; 4]>().prop_map(|value| (5, value.to_vec())),
        vec(any::<u8>(), 0..300).prop_map(|value| (2, delimited(&value))),
    ];
    (1000..(1u32 << 29), value)
        .prop_map(move |(tag, (wire, value))| [key(tag, wire), value].concat())
}

fn delimited(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

/// `content` as the length-delimited field `tag` (below 16).
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    [vec![tag << 3 | 2], delimited(content)].concat()
}

/// Decodes as tonic does: a body has a `decode` of its own that hides this one.
fn received<M: Message + Default>(bytes: &[u8]) -> Result<M, DecodeError> {
    M::decode(bytes)
}

/// The number of the field `input` of a start request, which holds `Payloads`.
const INPUT: u8 = 5;

/// A chain of `depth` failures, encoded.
fn chain(depth: usize) -> Vec<u8> {
    // Lengths of the causes from the innermost outwards, then keys and lengths the other way.
    let mut lengths = vec![0];
    for at in 1..depth {
        let inner: usize = lengths[at - 1];
        lengths.push(1 + prost::length_delimiter_len(inner) + inner);
    }
    let mut body = Vec::new();
    for length in lengths.iter().rev().skip(1) {
        body.push(4 << 3 | 2);
        prost::encoding::encode_varint(*length as u64, &mut body);
    }
    body
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_equal(
        payload in payload(),
        payloads in payloads(),
        fields in fields(),
        failure in failures(),
    ) {
        let memo = decoded::Memo { fields: fields.clone() };
        let header = decoded::Header { fields };
        prop_assert_eq!(common::Payload::encode_from(&payload).decode(), Ok(payload));
        prop_assert_eq!(common::Payloads::encode_from(&payloads).decode(), Ok(payloads));
        prop_assert_eq!(common::Memo::encode_from(&memo).decode(), Ok(memo));
        prop_assert_eq!(common::Header::encode_from(&header).decode(), Ok(header));
        let body = failure::Failure::encode_from(&failure);
        prop_assert_eq!(failure::Failure::from_encoded(body.encoded().clone()), Ok(body.clone()));
        prop_assert_eq!(received::<failure::Failure>(body.encoded()), Ok(body.clone()));
        prop_assert_eq!(body.decode(), Ok(failure));
    }

    #[test]
    fn unknown_fields_survive_byte_for_byte(
        payload in payload(),
        inner in vec(unknown_field(), 0..4),
        outer in vec(unknown_field(), 0..4),
    ) {
        let payload = [payload.encode_to_vec(), inner.concat()].concat();
        let payloads = [field(1, &payload), outer.concat(), field(1, &payload)].concat();
        let request = field(INPUT, &payloads);
        let decoded = StartWorkflowExecutionRequest::decode(&request[..]).expect("decodes");
        let input = decoded.input.clone().expect("has input");
        prop_assert_eq!(input.encoded(), &payloads);
        for inside in input.decode().expect("decodes").payloads {
            prop_assert_eq!(inside.encoded(), &payload);
        }
        prop_assert_eq!(decoded.encode_to_vec(), request);
    }

    #[test]
    fn parts_merge_as_protobuf_says(first in failures(), second in failures()) {
        let (first, second) = (first.encode_to_vec(), second.encode_to_vec());
        let parts = [field(4, &first), field(4, &second)].concat();
        let merged = received::<failure::Failure>(&parts).expect("decodes");
        let merged = merged.decode().expect("opens");
        let whole = decoded::Failure::decode(&[first, second].concat()[..]).expect("decodes");
        prop_assert_eq!(merged.cause.expect("has a cause").decode(), Ok(whole));
    }

    #[test]
    fn truncated_bodies_are_refused(failure in failures(), cut in any::<prop::sample::Index>()) {
        let whole = field(4, &failure.encode_to_vec());
        let cut = &whole[..1 + cut.index(whole.len() - 1)];
        prop_assert_eq!(walk_failure(cut), Err(WalkError::Malformed));
        prop_assert!(received::<failure::Failure>(cut).is_err());
    }

    #[test]
    fn what_passes_opens_at_every_level(
        failure in failures(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = failure.encode_to_vec();
        for (at, value) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let mut next = received::<failure::Failure>(&bytes[..]).ok();
        prop_assert_eq!(next.is_some(), walk_failure(&bytes).is_ok());
        while let Some(body) = next {
            next = body.decode().expect("a body that exists opens").cause;
        }
    }
}

/// One of every kind, with all the strings there are.
fn infos(text: &dyn Fn() -> String, payloads: Option<common::Payloads>) -> [FailureInfo; 9] {
    [
        FailureInfo::ApplicationFailureInfo(failure::ApplicationFailureInfo {
            r#type: text(),
            details: payloads.clone(),
            ..Default::default()
        }),
        FailureInfo::TimeoutFailureInfo(failure::TimeoutFailureInfo {
            last_heartbeat_details: payloads.clone(),
            ..Default::default()
        }),
        FailureInfo::CanceledFailureInfo(failure::CanceledFailureInfo {
            details: payloads.clone(),
            identity: text(),
        }),
        FailureInfo::TerminatedFailureInfo(failure::TerminatedFailureInfo { identity: text() }),
        FailureInfo::ResetWorkflowFailureInfo(failure::ResetWorkflowFailureInfo {
            last_heartbeat_details: payloads,
        }),
        FailureInfo::ActivityFailureInfo(failure::ActivityFailureInfo {
            identity: text(),
            activity_type: Some(common::ActivityType { name: text() }),
            activity_id: text(),
            ..Default::default()
        }),
        FailureInfo::ChildWorkflowExecutionFailureInfo(
            failure::ChildWorkflowExecutionFailureInfo {
                namespace: text(),
                workflow_execution: Some(common::WorkflowExecution {
                    workflow_id: text(),
                    run_id: text(),
                }),
                workflow_type: Some(common::WorkflowType { name: text() }),
                ..Default::default()
            },
        ),
        FailureInfo::NexusOperationExecutionFailureInfo(failure::NexusOperationFailureInfo {
            endpoint: text(),
            service: text(),
            operation: text(),
            operation_id: text(),
            operation_token: text(),
            ..Default::default()
        }),
        FailureInfo::NexusHandlerFailureInfo(failure::NexusHandlerFailureInfo {
            r#type: text(),
            ..Default::default()
        }),
    ]
}

#[test]
fn a_bad_string_anywhere_is_refused() {
    const MARK: &str = "QZQZ";
    let text = || MARK.to_owned();
    let payload = common::Payload::encode_from(&decoded::Payload {
        metadata: [(text(), Bytes::from_static(b"\xff"))].into(),
        ..Default::default()
    });
    let payloads = decoded::Payloads { payloads: vec![payload.clone()] };
    let payloads = Some(common::Payloads::encode_from(&payloads));
    let mut body = failure::Failure::default();
    for info in infos(&text, payloads) {
        body = failure::Failure::encode_from(&decoded::Failure {
            message: text(),
            source: text(),
            stack_trace: text(),
            encoded_attributes: Some(payload.clone()),
            cause: Some(body),
            failure_info: Some(info),
        });
    }
    let bytes = body.encoded().to_vec();
    assert_eq!(walk_failure(&bytes), Ok(()));
    let places: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(MARK.as_bytes())).collect();
    assert_eq!(places.len(), 9 * 4 + 20);
    for at in places {
        let mut bad = bytes.clone();
        bad[at] = 0xff;
        assert_eq!(walk_failure(&bad), Err(WalkError::Utf8), "at {at}");
        assert!(received::<failure::Failure>(&bad[..]).is_err(), "at {at}");
    }
}

#[test]
fn a_request_with_a_bad_body_does_not_decode() {
    let entry = field(1, &[0xff]);
    let request = field(INPUT, &field(1, &field(1, &entry)));
    let error = StartWorkflowExecutionRequest::decode(&request[..]).expect_err("not UTF-8");
    assert!(error.to_string().contains("input: a string is not UTF-8"), "{error}");
}

#[test]
fn groups_are_refused() {
    for bytes in [&[0x0b, 0x0c][..], &[0xfb, 0x07, 0xfc, 0x07], &[0x0c]] {
        assert!(received::<failure::Failure>(bytes).is_err(), "{bytes:?}");
        assert!(walk_failure(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn causes_nest_as_deep_as_in_go_and_no_deeper() {
    let deepest = chain(MAX_DEPTH);
    let body = received::<failure::Failure>(&deepest[..]).expect("passes");
    assert_eq!(body.encoded(), &deepest);
    let top = body.decode().expect("opens");
    assert_eq!(top.cause.as_ref().expect("has a cause").encoded(), &chain(MAX_DEPTH - 1));

    assert_eq!(walk_failure(&chain(MAX_DEPTH + 1)), Err(WalkError::TooDeep));
    assert!(received::<failure::Failure>(&chain(MAX_DEPTH + 1)[..]).is_err());

    // One more around it: what we encode ourselves must be readable, so its cause goes.
    let wrapped = decoded::Failure { message: "m".into(), cause: Some(body), ..Default::default() };
    let kept = failure::Failure::encode_from(&wrapped).decode().expect("opens");
    assert_eq!(kept, decoded::Failure { cause: None, ..wrapped });
}

#[test]
fn a_body_does_not_keep_its_frame_alive() {
    let payload = common::Payload::json("\"some text that is long enough not to be inlined\"");
    let payloads = common::Payloads::encode_from(&decoded::Payloads { payloads: vec![payload] });
    let frame = Bytes::from(field(INPUT, payloads.encoded()));
    let request = StartWorkflowExecutionRequest::decode(frame.clone()).expect("decodes");
    assert_eq!(request.input, Some(payloads));
    assert!(frame.is_unique());
}

#[test]
fn json_payloads_are_those_of_the_sdks() {
    let payload = common::Payload::json("{\"a\":1}");
    let decoded = payload.decode().expect("opens");
    assert_eq!(decoded.metadata["encoding"], "json/plain");
    assert_eq!(decoded.data, "{\"a\":1}");
    assert_eq!(format!("{payload:?}"), "Payload(33 bytes)");
}

#[test]
fn a_failure_split_from_its_cause_is_the_failure_decoded() {
    let failure = |message: &str, cause| {
        failure::Failure::encode_from(&decoded::Failure {
            message: message.to_owned(),
            cause,
            ..decoded::Failure::default()
        })
    };
    let inner = failure("inner", Some(failure("innermost", None)));
    let whole = failure("outer", Some(inner.clone()));
    let (own, cause) = whole.split().expect("splits");
    assert_eq!((own.message.as_str(), &own.cause, cause), ("outer", &None, Some(inner)));

    // The cause in two pieces, as protobuf allows: they merge.
    let mut body = whole.encoded().to_vec();
    body.extend([0x22, 0x03, 0x0a, 0x01, b'x']);
    let pieces = failure::Failure::from_encoded(body.into()).expect("valid");
    let (_, cause) = pieces.split().expect("splits");
    assert_eq!(cause, pieces.decode().expect("decodes").cause);
}
