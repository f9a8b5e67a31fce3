// The wire contract between osquery and its extensions, as osquery 5 speaks it.
//
// Requests, rows and messages are `binary` here where osquery writes `string`: the bytes on the wire are the same, but a
// cell or an error text that is not UTF-8 then costs that one value, not the whole message.
//
// `cargo xtask thrift` makes `extension/src/thrift/generated.rs` from this file (thrift-compiler 0.17, `--gen rs`).

namespace rs osquery

typedef map<binary, binary> ExtensionPluginRequest
typedef list<map<binary, binary>> ExtensionPluginResponse

struct InternalOptionInfo {
  1:binary value,
  2:binary default_value,
  3:binary type,
}

typedef map<binary, InternalOptionInfo> InternalOptionList

struct InternalExtensionInfo {
  1:binary name,
  2:binary version,
  3:binary sdk_version,
  4:binary min_sdk_version,
}

typedef i64 ExtensionRouteUUID
typedef map<string, ExtensionPluginResponse> ExtensionRouteTable
typedef map<string, ExtensionRouteTable> ExtensionRegistry
typedef map<ExtensionRouteUUID, InternalExtensionInfo> InternalExtensionList

struct ExtensionStatus {
  1:i32 code,
  2:binary message,
  3:ExtensionRouteUUID uuid,
}

struct ExtensionResponse {
  1:ExtensionStatus status,
  2:ExtensionPluginResponse response,
}

service Extension {
  ExtensionStatus ping(),
  ExtensionResponse call(
    1:binary registry,
    2:binary item,
    3:ExtensionPluginRequest request),
  void shutdown(),
}

service ExtensionManager extends Extension {
  InternalExtensionList extensions(),
  InternalOptionList options(),
  ExtensionStatus registerExtension(
    1:InternalExtensionInfo info,
    2:ExtensionRegistry registry),
  ExtensionStatus deregisterExtension(1:ExtensionRouteUUID uuid),
  ExtensionResponse query(1:binary sql),
  ExtensionResponse getQueryColumns(1:binary sql),
}
