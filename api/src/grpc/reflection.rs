//! The reflection service, in both of its versions: tools like grpcurl ask it what there is to call.
//!
//! The messages of both versions are the same on the wire; the older ones are answered by way of
//! the newer ones. What is not there is told within the conversation, which goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::pb::FILE_DESCRIPTOR_SET as HEALTH;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest as Question;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse as Answer;
use tonic_reflection::pb::v1::server_reflection_server::{
    ServerReflection, ServerReflectionServer,
};
use tonic_reflection::pb::v1alpha::server_reflection_server as alpha;
use tonic_reflection::pb::{v1, v1alpha};

use super::SERVICES;

/// The descriptors of Temporal's services and of all that they refer to.
const TEMPORAL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The descriptions that the build put in cannot be read: the build is broken.
#[derive(Debug, thiserror::Error)]
#[error("a description of the services cannot be read")]
pub struct Unreadable(#[from] prost::DecodeError);

/// A set of files, each as the bytes it came in: what is decoded loses the options that only
/// others know.
#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<bytes::Bytes>,
}

/// What is described.
#[derive(Default)]
struct Described {
    /// The bytes of the files.
    files: Vec<bytes::Bytes>,
    /// Files by name.
    names: BTreeMap<String, usize>,
    /// In which file something is, by its full name.
    symbols: BTreeMap<String, usize>,
    /// In which file the extensions of a message are, by its full name and by number.
    extensions: BTreeMap<String, BTreeMap<i32, usize>>,
}

impl Described {
    fn read() -> Result<Described, Unreadable> {
        let mut all = Described::default();
        for set in [HEALTH, v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET, TEMPORAL] {
            for bytes in Files::decode(set)?.file {
                let file = FileDescriptorProto::decode(bytes.clone())?;
                // A file that several sets have is the same in all.
                if !all.names.contains_key(file.name()) {
                    all.add(&file, bytes);
                }
            }
        }
        Ok(all)
    }

    fn add(&mut self, file: &FileDescriptorProto, bytes: bytes::Bytes) {
        let at = self.files.len();
        self.files.push(bytes);
        self.names.insert(file.name().to_owned(), at);
        let scope = file.package();
        for message in &file.message_type {
            self.message(at, scope, message);
        }
        for kind in &file.enum_type {
            self.enumeration(at, scope, kind);
        }
        self.extended(at, scope, &file.extension);
        for service in &file.service {
            let name = self.symbol(at, scope, service.name());
            for method in &service.method {
                self.symbol(at, &name, method.name());
            }
        }
    }

    fn message(&mut self, at: usize, scope: &str, message: &DescriptorProto) {
        let name = self.symbol(at, scope, message.name());
        for field in &message.field {
            self.symbol(at, &name, field.name());
        }
        for oneof in &message.oneof_decl {
            self.symbol(at, &name, oneof.name());
        }
        for kind in &message.enum_type {
            self.enumeration(at, &name, kind);
        }
        self.extended(at, &name, &message.extension);
        for nested in &message.nested_type {
            self.message(at, &name, nested);
        }
    }

    /// The values of an enumeration are named beside it, not within it.
    fn enumeration(&mut self, at: usize, scope: &str, kind: &EnumDescriptorProto) {
        self.symbol(at, scope, kind.name());
        for value in &kind.value {
            self.symbol(at, scope, value.name());
        }
    }

    fn extended(&mut self, at: usize, scope: &str, fields: &[FieldDescriptorProto]) {
        for field in fields {
            self.symbol(at, scope, field.name());
            let of = field.extendee().trim_start_matches('.').to_owned();
            self.extensions.entry(of).or_default().insert(field.number(), at);
        }
    }

    fn symbol(&mut self, at: usize, scope: &str, name: &str) -> String {
        let name = if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") };
        self.symbols.insert(name.clone(), at);
        name
    }

    fn answer(
        &self,
        asked: v1::ServerReflectionRequest,
    ) -> Result<v1::ServerReflectionResponse, Status> {
        let question = asked.message_request.as_ref();
        let question =
            question.ok_or_else(|| Status::invalid_argument("invalid MessageRequest"))?;
        let file = |at: Option<&usize>| {
            let bytes = self.files.get(*at?)?.to_vec();
            let file_descriptor_proto = vec![bytes];
            Some(Answer::FileDescriptorResponse(v1::FileDescriptorResponse {
                file_descriptor_proto,
            }))
        };
        let answer = match question {
            Question::FileByFilename(name) => file(self.names.get(name)),
            Question::FileContainingSymbol(name) => file(self.symbols.get(name)),
            Question::FileContainingExtension(asked) => {
                let known = self.extensions.get(&asked.containing_type);
                file(known.and_then(|known| known.get(&asked.extension_number)))
            }
            Question::AllExtensionNumbersOfType(name) => self.numbers(name),
            Question::ListServices(_) => {
                let service = SERVICES.map(|name| v1::ServiceResponse { name: name.to_owned() });
                let service = service.to_vec();
                Some(Answer::ListServicesResponse(v1::ListServiceResponse { service }))
            }
        };
        let answer = answer.unwrap_or_else(|| {
            let (error_code, error_message) =
                (tonic::Code::NotFound as i32, "proto: not found".to_owned());
            Answer::ErrorResponse(v1::ErrorResponse { error_code, error_message })
        });
        Ok(v1::ServerReflectionResponse {
            valid_host: asked.host.clone(),
            original_request: Some(asked),
            message_response: Some(answer),
        })
    }

    /// The extensions of a message; none of one that has none is an answer, too.
    fn numbers(&self, message: &str) -> Option<Answer> {
        self.symbols.get(message)?;
        let known = self.extensions.get(message);
        let extension_number = known.map(|known| known.keys().copied().collect());
        Some(Answer::AllExtensionNumbersResponse(v1::ExtensionNumberResponse {
            base_type_name: message.to_owned(),
            extension_number: extension_number.unwrap_or_default(),
        }))
    }
}

/// Both versions of the service.
#[derive(Clone)]
pub(crate) struct Reflection {
    described: Arc<Described>,
    draining: watch::Receiver<bool>,
}

impl Reflection {
    /// Conversations end once `draining` is true.
    pub(crate) fn new(draining: watch::Receiver<bool>) -> Result<Reflection, Unreadable> {
        Ok(Reflection { described: Arc::new(Described::read()?), draining })
    }

    /// Version 1.
    pub(crate) fn stable(&self) -> ServerReflectionServer<Reflection> {
        ServerReflectionServer::new(self.clone()).accept_compressed(CompressionEncoding::Gzip)
    }

    /// The version before, which older tools ask for.
    pub(crate) fn alpha(&self) -> alpha::ServerReflectionServer<Reflection> {
        let service = alpha::ServerReflectionServer::new(self.clone());
        service.accept_compressed(CompressionEncoding::Gzip)
    }

    /// Answers one question after the other.
    fn converse<Q, A>(&self, questions: Streaming<Q>) -> BoxStream<'static, Result<A, Status>>
    where
        Q: Message + Send + 'static,
        A: Message + Default + Send + 'static,
    {
        let (described, mut draining) = (self.described.clone(), self.draining.clone());
        let answers = questions.map(move |question| {
            let asked = reworded(&question?)?;
            reworded(&described.answer(asked)?)
        });
        let stopped = async move {
            // An error means that the server is gone.
            let _gone = draining.wait_for(|draining| *draining).await;
        };
        answers.take_until(Box::pin(stopped)).boxed()
    }
}

/// A message of one version in the words of another, which are the same.
fn reworded<T: Message + Default>(message: &impl Message) -> Result<T, Status> {
    let read = T::decode(message.encode_to_vec().as_slice());
    read.map_err(|error| Status::internal(error.to_string()))
}

#[tonic::async_trait]
impl ServerReflection for Reflection {
    type ServerReflectionInfoStream =
        BoxStream<'static, Result<v1::ServerReflectionResponse, Status>>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<v1::ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        Ok(Response::new(self.converse(request.into_inner())))
    }
}

#[tonic::async_trait]
impl alpha::ServerReflection for Reflection {
    type ServerReflectionInfoStream =
        BoxStream<'static, Result<v1alpha::ServerReflectionResponse, Status>>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<v1alpha::ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        Ok(Response::new(self.converse(request.into_inner())))
    }
}
