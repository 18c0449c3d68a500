/// Which method calls which, read out of built assemblies: for rules that the whole tree has to keep.
module Cmcl.Tests.Calls

open System
open System.Collections.Immutable
open System.IO
open System.Reflection.Emit
open System.Reflection.Metadata
open System.Reflection.Metadata.Ecma335
open System.Reflection.PortableExecutable

/// A method as text, with the types of its parameters: `TorchSharp.torch/Tensor::add(TorchSharp.torch/Tensor)`.
type Method = string

/// A call, and where it is written, such as `Der.fs:43`, where there are symbols beside the assembly.
type Call = { From: Method; To: Method; Where: string option }

/// Types as text, in which a reference and a definition of one type read alike.
type private Names(reader: MetadataReader) =
    let name (space: StringHandle) (own: StringHandle) =
        match reader.GetString space with
        | "" -> reader.GetString own
        | space -> $"{space}.{reader.GetString own}"

    member names.Definition(handle: TypeDefinitionHandle) : string =
        let definition = reader.GetTypeDefinition handle
        let own = name definition.Namespace definition.Name
        let outer = definition.GetDeclaringType()
        if outer.IsNil then own else $"{names.Definition outer}/{own}"

    member names.Reference(handle: TypeReferenceHandle) : string =
        let reference = reader.GetTypeReference handle
        let own = name reference.Namespace reference.Name

        if reference.ResolutionScope.Kind = HandleKind.TypeReference then
            $"{names.Reference(TypeReferenceHandle.op_Explicit reference.ResolutionScope)}/{own}"
        else
            own

    interface ISignatureTypeProvider<string, unit> with
        member _.GetArrayType(element, shape) = $"{element}[{shape.Rank}]"
        member _.GetByReferenceType element = $"{element}&"
        member _.GetFunctionPointerType _ = "fn"
        member _.GetGenericInstantiation(generic, arguments) = generic + "<" + String.Join(",", arguments) + ">"
        member _.GetGenericMethodParameter(_, index) = $"!!{index}"
        member _.GetGenericTypeParameter(_, index) = $"!{index}"
        member _.GetModifiedType(_, unmodified, _) = unmodified
        member _.GetPinnedType element = element
        member _.GetPointerType element = $"{element}*"
        member _.GetPrimitiveType code = string code
        member _.GetSZArrayType element = $"{element}[]"
        member names.GetTypeFromDefinition(_, handle, _) = names.Definition handle
        member names.GetTypeFromReference(_, handle, _) = names.Reference handle

        member names.GetTypeFromSpecification(reader, _, handle, _) =
            reader.GetTypeSpecification(handle).DecodeSignature(names, ())

/// Every opcode by its number; those of two bytes begin with 0xFE.
let private opcodes: Map<int, OpCode> =
    typeof<OpCodes>.GetFields()
    |> Array.map (fun field -> field.GetValue null |> Unchecked.unbox<OpCode>)
    |> Array.map (fun code -> int (uint16 code.Value), code)
    |> Map.ofArray

/// The tokens of methods in a body, each with its place there: what it calls, makes, or takes the address of.
let private tokens (il: byte[]) : (int * int) list =
    let rec read at found =
        if at >= il.Length then
            List.rev found
        else
            let code, at = if il[at] = 0xFEuy then opcodes[0xFE00 ||| int il[at + 1]], at + 2 else opcodes[int il[at]], at + 1

            match code.OperandType with
            | OperandType.InlineNone -> read at found
            | OperandType.ShortInlineBrTarget
            | OperandType.ShortInlineI
            | OperandType.ShortInlineVar -> read (at + 1) found
            | OperandType.InlineVar -> read (at + 2) found
            | OperandType.InlineI8
            | OperandType.InlineR -> read (at + 8) found
            | OperandType.InlineSwitch -> read (at + 4 + 4 * BitConverter.ToInt32(il, at)) found
            | OperandType.InlineMethod
            | OperandType.InlineTok -> read (at + 4) ((at, BitConverter.ToInt32(il, at)) :: found)
            | _ -> read (at + 4) found

    read 0 []

/// Where the code of a method at some place was written, by the symbols beside its assembly.
let private written (file: string) : MethodDefinitionHandle -> int -> string option =
    let symbols = Unchecked.nonNull (Path.ChangeExtension(file, ".pdb"))

    if not (File.Exists symbols) then
        fun _ _ -> None
    else
        let reader = MetadataReaderProvider.FromPortablePdbStream(new MemoryStream(File.ReadAllBytes symbols)).GetMetadataReader()

        fun handle at ->
            let points = reader.GetMethodDebugInformation(handle.ToDebugInformationHandle()).GetSequencePoints()

            points
            |> Seq.filter (fun point -> point.Offset <= at && not point.IsHidden)
            |> Seq.tryLast
            |> Option.map (fun point ->
                let document = reader.GetString(reader.GetDocument(point.Document).Name)
                $"{FileInfo(document).Name}:{point.StartLine}")

/// Every call in an assembly, also through a delegate or a virtual method. What a compiler made of a closure or an iterator counts as
/// called by who makes it.
let ofAssembly (file: string) : Call list =
    use image = new PEReader(new MemoryStream(File.ReadAllBytes file))
    let reader = image.GetMetadataReader()
    let names = Names reader
    let where = written file
    let text (name: StringHandle) = reader.GetString name

    let signed owner name (signature: MethodSignature<string>) =
        let types = String.Join(",", signature.ParameterTypes)
        $"{owner}::{name}({types})"

    let definition (handle: MethodDefinitionHandle) =
        let m = reader.GetMethodDefinition handle
        signed (names.Definition(m.GetDeclaringType())) (text m.Name) (m.DecodeSignature(names, ()))

    let owner (handle: EntityHandle) =
        match handle.Kind with
        | HandleKind.TypeDefinition -> names.Definition(TypeDefinitionHandle.op_Explicit handle)
        | HandleKind.TypeReference -> names.Reference(TypeReferenceHandle.op_Explicit handle)
        | HandleKind.TypeSpecification ->
            let whole = reader.GetTypeSpecification(TypeSpecificationHandle.op_Explicit handle).DecodeSignature(names, ())
            // Members of a generic type are its definition's.
            match whole.IndexOf '<' with
            | at when at > 0 && whole.EndsWith '>' && not (whole.Substring(0, at).EndsWith '/') -> whole.Substring(0, at)
            | _ -> whole
        | _ -> ""

    let rec callee (handle: EntityHandle) : Method option =
        match handle.Kind with
        | HandleKind.MethodDefinition -> Some(definition (MethodDefinitionHandle.op_Explicit handle))
        | HandleKind.MethodSpecification ->
            callee (reader.GetMethodSpecification(MethodSpecificationHandle.op_Explicit handle).Method)
        | HandleKind.MemberReference ->
            let m = reader.GetMemberReference(MemberReferenceHandle.op_Explicit handle)

            match m.GetKind() with
            | MemberReferenceKind.Method -> Some(signed (owner m.Parent) (text m.Name) (m.DecodeMethodSignature(names, ())))
            | _ -> None
        | _ -> None

    [ for handle in reader.MethodDefinitions do
          let m = reader.GetMethodDefinition handle

          if m.RelativeVirtualAddress <> 0 then
              let from = definition handle
              let body = image.GetMethodBody(m.RelativeVirtualAddress)

              for at, token in tokens (Unchecked.nonNull (body.GetILBytes())) do
                  match callee (MetadataTokens.EntityHandle token) with
                  | Some called -> { From = from; To = called; Where = where handle at }
                  | None -> ()

      // A type that a compiler made inside another one runs for who makes it.
      for handle in reader.TypeDefinitions do
          let t = reader.GetTypeDefinition handle

          if (text t.Name).Contains '<' then
              let methods = [ for m in t.GetMethods() -> definition m ]

              for made in methods |> List.filter (fun m -> m.Contains "::.ctor(") do
                  for m in methods do
                      if m <> made then
                          { From = made; To = m; Where = None } ]

/// Everything that reaches one of `targets`, with the call that leads there.
let reaching (targets: Set<Method>) (calls: Call list) : Map<Method, Method> =
    let callers = calls |> List.groupBy _.To |> Map.ofList

    let rec grow found wave =
        match wave with
        | [] -> found
        | target :: rest ->
            let fresh =
                callers
                |> Map.tryFind target
                |> Option.defaultValue []
                |> List.map _.From
                |> List.distinct
                |> List.filter (fun from -> not (Map.containsKey from found || Set.contains from targets))

            grow (fresh |> List.fold (fun found from -> Map.add from target found) found) (fresh @ rest)

    grow Map.empty (List.ofSeq targets)
