namespace Cmcl.Encoders

open System
open System.IO
open System.IO.Compression
open System.Runtime.CompilerServices
open System.Runtime.InteropServices
open TorchSharp
open Cmcl

/// TorchScript archives.
[<RequireQualifiedAccess>]
module Script =
    let private fail (file: string) reason : 'a = Check.fail (Fault.Unreadable(file, reason))

    /// Refuses what is no archive with a program in it, as TorchScript's are, but one with pickled weights only.
    let private requireScript (file: string) : unit =
        let names =
            try
                use archive = ZipFile.OpenRead file
                [ for entry in archive.Entries -> entry.FullName ]
            with :? InvalidDataException ->
                fail
                    file
                    "it is not a TorchScript archive; a file of pickled Python objects (torch.save) is not read, because it can run code: save the model with torch.jit.save, or as ONNX"

        let within (part: string) = names |> List.exists (fun name -> name.Contains("/" + part))

        if not (within "code/" && within "constants.pkl") then
            fail
                file
                "it is an archive of pickled Python objects (torch.save) without a program, and is not read, because it can run code: save the model with torch.jit.save, or as ONNX"

    let private ofTuple (d: Description) (value: obj) : torch.Tensor =
        let place = d.OutputName |> Option.defaultValue "0"

        let pick (all: obj list) =
            match Int32.TryParse place with
            | true, i when i >= 0 && i < all.Length ->
                match all[i] with
                | :? torch.Tensor as t -> t
                | _ -> fail d.File $"value {i} of what it returns is no tensor"
            | _ -> Check.fail (Fault.Unknown($"output of '{d.File}'", place, [ for i in 0 .. all.Length - 1 -> string i ]))

        match value with
        | :? torch.Tensor as t -> t
        | :? ITuple as t -> pick [ for i in 0 .. t.Length - 1 -> Unchecked.nonNull (box t[i]) ]
        | :? Collections.IEnumerable as all -> pick [ for t in all -> t ]
        | other -> fail d.File $"it returns {other.GetType().Name}; a tensor, or a tuple or list of tensors, is needed"

    /// What a module returns, of several tensors the one that the description names.
    let private called (d: Description) (device: torch.Device) (inputs: torch.Tensor list) (script: torch.jit.ScriptModule) =
        let inputs = [| for t in inputs -> box (t.``to`` device) |]

        try
            (script.call inputs |> ofTuple d).``to``(torch.float32).cpu()
        with :? ExternalException as e ->
            fail d.File $"the module failed: {Reason.ofException e}"

    /// Loads an archive: a function of the inputs in the order of the module's arguments, and what frees it.
    let load (d: Description) (device: torch.Device) : (torch.Tensor list -> torch.Tensor) * (unit -> unit) =
        requireScript d.File
        let script = torch.jit.load (d.File, device)
        script.eval ()

        (fun inputs ->
            use _ = torch.no_grad ()
            called d device inputs script),
        (fun () -> script.Dispose())
