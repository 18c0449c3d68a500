namespace Cmcl

open System
open System.IO
open System.Runtime.InteropServices
open TorchSharp

/// Finds and loads the native libtorch and TorchSharp's native shim before the first tensor is made.
///
/// TorchSharp 0.107.0's Linux shim asks for the symbol version GLIBCXX_3.4.32 (GCC 13) but uses nothing from it
/// (its one symbol of that version has no relocation), so on older systems such as Debian 12 it fails to load for no
/// real reason. There we load a copy of the shim in which that one version requirement is marked weak (one byte).
[<RequireQualifiedAccess>]
module Native =

    /// The environment variable that names a folder with libtorch's shared libraries (such as Python's torch/lib).
    [<Literal>]
    let FolderVariable = "CMCL_LIBTORCH"

    [<DllImport("libc", EntryPoint = "setenv")>]
    extern int private setenv(string name, string value, int overwrite)

    [<DllImport("libc", EntryPoint = "malloc_trim")>]
    extern int private mallocTrim(unativeint pad)

    /// Gives memory that tensors have left back to the system, in some milliseconds. glibc keeps it: blocks of a batch's size come and go
    /// among small ones that stay a while, and its heap grows by what is free but in pieces. Nothing with another C library.
    let trim () : unit =
        if OperatingSystem.IsLinux() then
            try
                mallocTrim 0un |> ignore
            with :? EntryPointNotFoundException ->
                ()

    let private shimName = "libLibTorchSharp.so"

    /// Hash of an ELF version name, as in the SysV ABI.
    let private elfHash (s: string) =
        let mutable h = 0u

        for c in s do
            h <- (h <<< 4) + uint32 c
            let g = h &&& 0xf0000000u

            if g <> 0u then
                h <- h ^^^ (g >>> 24)

            h <- h &&& ~~~g

        h

    /// Marks the named version requirement of a 64-bit little-endian ELF file as weak. True when something changed.
    let weakenVersion (version: string) (elf: byte[]) : bool =
        let u16 o = BitConverter.ToUInt16(elf, o)
        let u32 o = BitConverter.ToUInt32(elf, o)
        let u64 o = BitConverter.ToUInt64(elf, o)
        let wanted = elfHash version
        let mutable changed = false
        let sectionTable = int (u64 0x28)
        let sectionSize, sections = int (u16 0x3A), int (u16 0x3C)

        for i in 0 .. sections - 1 do
            let section = sectionTable + i * sectionSize

            if u32 (section + 4) = 0x6ffffffeu then // SHT_GNU_verneed
                let mutable need = int (u64 (section + 24))
                let mutable more = true

                while more do
                    let count = int (u16 (need + 2))
                    let mutable aux = need + int (u32 (need + 8))

                    for _ in 1..count do
                        if u32 aux = wanted && elf[aux + 4] &&& 2uy = 0uy then
                            elf[aux + 4] <- elf[aux + 4] ||| 2uy // VER_FLG_WEAK
                            changed <- true

                        aux <- aux + int (u32 (aux + 12))

                    let next = int (u32 (need + 12))
                    more <- next <> 0
                    need <- need + next

        changed

    /// What the loader says, without .NET's advice around it.
    let private said (message: string) : string =
        message.Split('\n', StringSplitOptions.RemoveEmptyEntries ||| StringSplitOptions.TrimEntries) |> Array.last

    /// The library's handle goes nowhere: it stays loaded, and those that need it find it by its own name.
    let private tryLoad (path: string) : Result<unit, string> =
        try
            NativeLibrary.Load path |> ignore
            Ok()
        with
        | :? DllNotFoundException
        | :? BadImageFormatException as e -> Error(said e.Message)

    /// Where what can be made again is kept between runs: cmcl in XDG_CACHE_HOME, in ~/.cache, or in the folder for temporary files.
    let cacheFolder () : string =
        let root =
            match Environment.GetEnvironmentVariable "XDG_CACHE_HOME" with
            | null
            | "" ->
                // Empty when the home folder does not exist.
                match Environment.GetFolderPath Environment.SpecialFolder.UserProfile with
                | "" -> Path.GetTempPath()
                | home -> Path.Combine(home, ".cache")
            | dir -> dir

        Path.Combine(root, "cmcl")

    /// The path of a copy that loads here; none where the file asks for nothing that is missing. Error: there is no folder to write it to.
    let private patchedCopy (shim: string) : Result<string option, string> =
        let bytes = File.ReadAllBytes shim

        let write (folder: string) =
            let target = Path.Combine(folder, shimName)

            if not (File.Exists target) then
                Directory.CreateDirectory folder |> ignore
                let temp = target + "." + Guid.NewGuid().ToString "N"
                File.WriteAllBytes(temp, bytes)
                File.Move(temp, target, true)

            target

        if weakenVersion "GLIBCXX_3.4.32" bytes then
            let digest = Convert.ToHexString(Security.Cryptography.SHA256.HashData bytes).Substring(0, 16)

            let places =
                [ fun () -> Path.Combine(cacheFolder (), digest)
                  fun () -> (Directory.CreateTempSubdirectory "cmcl").FullName ]

            let attempt place =
                try
                    Some(write (place ()))
                with
                | :? IOException
                | :? UnauthorizedAccessException -> None

            match List.tryPick attempt places with
            | Some path -> Ok(Some path)
            | None ->
                Error
                    $"'{shim}' has to be adapted to this system's C++ library, and the copy can be written neither to '{cacheFolder ()}' nor to '{Path.GetTempPath()}'; name a folder that can be written to in XDG_CACHE_HOME or TMPDIR"
        else
            Ok None

    let private folderOf (t: Type) =
        match Path.GetDirectoryName t.Assembly.Location with
        | null -> AppContext.BaseDirectory
        | dir -> dir

    let private chosen: string option =
        match Environment.GetEnvironmentVariable FolderVariable with
        | null
        | "" -> None
        | folder -> Some folder

    let private nativeFolders () =
        let managed = folderOf typeof<torch>

        let under dir = Path.Combine(dir, "runtimes", "linux-x64", "native")

        // The last two are for scripts that reference packages: PACKAGES/torchsharp/VERSION/lib/net8.0/TorchSharp.dll.
        let package = Path.GetFullPath(Path.Combine(managed, "..", ".."))
        let packages = Path.GetFullPath(Path.Combine(package, "..", ".."))

        [ match chosen with
          | Some folder ->
              folder
              Path.Combine(folder, "lib")
          | None -> ()
          managed
          under managed
          under AppContext.BaseDirectory
          under package
          under (Path.Combine(packages, "libtorch-cpu-linux-x64", "2.10.0")) ]
        |> List.distinct

    /// What was loaded: why libtorch was not, and why its part for CUDA was not.
    type private Loaded =
        { Libtorch: Result<unit, string>
          Cuda: Result<unit, string> }

    let private load () : Loaded =
        if not (OperatingSystem.IsLinux()) then
            { Libtorch = Ok(); Cuda = Ok() }
        else
            // libgomp spins at its barriers unless told otherwise, which on a busy machine costs a time slice per
            // operation. It reads the environment when it is loaded, and .NET's own setter does not reach it.
            setenv ("OMP_WAIT_POLICY", "passive", 0) |> ignore
            let folders = nativeFolders ()
            let has name folder = File.Exists(Path.Combine(folder, name))
            let home = folders |> List.tryFind (has "libtorch_cpu.so")

            // All of one libtorch, by full path, from where each part finds its own dependencies; by name (LD_LIBRARY_PATH) only
            // where none is known.
            let part name =
                match home with
                | Some folder when has name folder -> tryLoad (Path.Combine(folder, name))
                | Some folder -> Error $"'{folder}' has no {name}"
                | None -> tryLoad name

            // Dependencies first. What registers CUDA has to be there before libtorch is first asked for it.
            let parts =
                Map
                    [ for name in [ "libc10.so"; "libtorch_cpu.so"; "libc10_cuda.so"; "libtorch_cuda.so"; "libtorch.so" ] ->
                          name, part name ]

            let shim =
                match List.tryFind (has shimName) folders with
                | None -> tryLoad shimName
                | Some folder ->
                    let path = Path.Combine(folder, shimName)

                    match tryLoad path with
                    | Ok() -> Ok()
                    | refused ->
                        match patchedCopy path with
                        | Ok(Some copy) -> tryLoad copy
                        | Ok None -> refused
                        | Error reason -> Error reason

            let asked =
                match chosen with
                | Some folder when home <> Some folder && home <> Some(Path.Combine(folder, "lib")) ->
                    Error $"{FolderVariable} names '{folder}', which has no libtorch_cpu.so"
                | _ -> Ok()

            { Libtorch = asked |> Result.bind (fun () -> parts["libtorch_cpu.so"]) |> Result.bind (fun () -> shim)
              Cuda = parts["libtorch_cuda.so"] }

    let private once = lazy (load ())

    /// Loads the native libraries; does nothing the second time. Call it before the first use of TorchSharp.
    let init () : unit = once.Force() |> ignore

    /// Whether tensors are to be had, or what the loader said.
    let libtorch () : Result<unit, string> = once.Force().Libtorch

    /// Whether libtorch's part for CUDA was loaded, with a device or without, or what the loader said.
    let cuda () : Result<unit, string> = once.Force().Cuda

    let private decomposed =
        lazy
            (use scope = torch.NewDisposeScope()
             torch.linalg.eigh (torch.eye (2L, dtype = torch.float64, device = torch.CUDA)) |> ignore)

    /// Loads libtorch's linear algebra for CUDA, if the device is of CUDA; does nothing the second time. libtorch loads it with the first
    /// decomposition, and two threads that come to one at once break off: "lazy wrapper should be called at most once" (pytorch issue 90613).
    let linearAlgebra (device: torch.Device) : unit =
        if device.``type`` = DeviceType.CUDA then
            decomposed.Force()
