module Cmcl.Tests.ArchitectureTests

open System
open System.IO
open System.Reflection.Metadata
open System.Reflection.PortableExecutable
open System.Text.RegularExpressions
open System.Xml.Linq
open Cmcl.Tests.Checks
open Expecto

let private page = Path.Combine(root, "docs", "architecture.md")

let private listed (cell: string) =
    cell.Split ',' |> Array.map (fun s -> s.Trim().Trim '`') |> Array.filter ((<>) "") |> Set.ofArray

/// Project files, what they reference and their packages, as the page's table has it.
let private table: (string * Set<string> * Set<string>) list =
    [ for line in File.ReadAllLines page do
          let m = Regex.Match(line, @"^\| `([\w/.]+proj)` \|([^|]*)\|([^|]*)\|$")

          if m.Success then
              m.Groups[1].Value, listed m.Groups[2].Value, listed m.Groups[3].Value ]

let private included (element: string) (project: string) : string list =
    [ for e in XDocument.Load(Path.Combine(root, project)).Descendants(XName.Get element) do
          match e.Attribute(XName.Get "Include") with
          | null -> ()
          | include' -> include'.Value ]

/// The folder of a project that another one references.
let private folder (project: string) (reference: string) : string =
    let from = Path.Combine(root, project, "..")
    let to' = Path.GetDirectoryName(Path.GetFullPath(Path.Combine(from, reference))) |> Option.ofObj |> Option.get
    Path.GetRelativePath(root, to')

let private packages (project: string) : Set<string> =
    File.ReadAllLines(Path.Combine(root, project, "..", "paket.references"))
    |> Array.map _.Trim()
    |> Array.filter (fun line -> line <> "" && line <> "FSharp.Core" && not (line.StartsWith "group"))
    |> Set.ofArray

/// Every project of the tree but tests and samples.
let private projects: string list =
    [ for file in Directory.GetFiles(root, "*.*proj", SearchOption.AllDirectories) do
          let path = Path.GetRelativePath(root, file).Replace('\\', '/')
          let first = path.Split('/')[0]

          if not (List.contains first [ "tests"; "samples"; "output" ]) && not (path.Contains "/obj/") then
              path ]

/// The names of the assemblies that a built one references.
let private references (assembly: string) : Set<string> =
    use file = new PEReader(File.OpenRead(Path.Combine(AppContext.BaseDirectory, assembly)))
    let reader = file.GetMetadataReader()
    set [ for handle in reader.AssemblyReferences -> reader.GetString(reader.GetAssemblyReference(handle).Name) ]

let private isOurs (name: string) = name = "Cmcl" || name.StartsWith "Cmcl."

/// Folders of a project in their compile order, one entry for each stretch of files.
let private stretches (project: string) : string list =
    let folders =
        included "Compile" project
        |> List.map (fun file -> Path.GetDirectoryName file |> Option.ofObj |> Option.defaultValue "")

    folders |> List.fold (fun found f -> if List.tryHead found = Some f then found else f :: found) [] |> List.rev

let tests =
    testList
        "architecture"
        [ test "the page's table is that of the project files" {
              Expect.equal (table |> List.map (fun (p, _, _) -> p) |> List.sort) (List.sort projects) "projects"

              for project, uses, ofPackages in table do
                  let found = included "ProjectReference" project |> List.map (folder project) |> Set.ofList
                  Expect.equal found uses $"what {project} references"
                  Expect.equal (packages project) ofPackages $"packages of {project}"
          }

          test "Cmcl.dll references TorchSharp, the framework and nothing else" {
              let foreign =
                  references "Cmcl.dll"
                  |> Set.filter (fun name ->
                      not (name.StartsWith "System." || List.contains name [ "FSharp.Core"; "TorchSharp"; "netstandard" ]))

              Expect.isEmpty foreign "other assemblies"
          }

          test "an assembly references only what stands below it" {
              let below =
                  [ "Cmcl.dll", []
                    "Cmcl.Study.dll", [ "Cmcl" ]
                    "Cmcl.Report.dll", [ "Cmcl"; "Cmcl.Study" ]
                    "Cmcl.Import.dll", [ "Cmcl" ]
                    "Cmcl.Encoders.dll", [ "Cmcl" ]
                    "Cmcl.Bench.dll", [ "Cmcl"; "Cmcl.Study"; "Cmcl.Report" ]
                    "Cmcl.Runner.dll", [ "Cmcl"; "Cmcl.Study"; "Cmcl.Report" ]
                    "Cmcl.CSharp.dll", [ "Cmcl"; "Cmcl.Study"; "Cmcl.Report" ] ]

              for assembly, allowed in below do
                  Expect.isEmpty (Set.filter isOurs (references assembly) - set allowed) assembly
          }

          test "charts, frames and pages are referenced by report and what stands on it alone" {
              for assembly in [ "Cmcl.dll"; "Cmcl.Study.dll"; "Cmcl.Import.dll"; "Cmcl.Encoders.dll" ] do
                  let heavy = set [ "Plotly.NET"; "Deedle"; "Giraffe.ViewEngine" ]
                  Expect.isEmpty (Set.intersect (references assembly) heavy) assembly
          }

          test "a folder is one stretch of the compile order, and the page names it" {
              let text = File.ReadAllText page

              for project in [ "src/Cmcl.fsproj"; "study/Cmcl.Study.fsproj"; "report/Cmcl.Report.fsproj" ] do
                  let folders = stretches project
                  Expect.equal folders (List.distinct folders) $"folders of {project}"

                  for folder in folders do
                      Expect.stringContains text $"`{folder}`" project
          }

          test "every file that the page sends a reader to is there" {
              for m in Regex.Matches(File.ReadAllText page, @"`((?:src|study|report|cli)/[\w/]+\.fs)`") do
                  Expect.isTrue (File.Exists(Path.Combine(root, m.Groups[1].Value))) m.Groups[1].Value
          }

          test "every file of tests is in the list that runs" {
              let listed = File.ReadAllText(Path.Combine(root, "tests", "Main.fs"))

              for file in Directory.GetFiles(Path.Combine(root, "tests"), "*Tests.fs") do
                  Expect.stringContains listed (string (Path.GetFileNameWithoutExtension file) + ".tests") "tests/Main.fs"
          }

          test "a part of the tests is named to its process however they are started" {
              Expect.equal (Summary.argumentsOf "/bin/dotnet" "Tests.dll" "unit") [ "Tests.dll"; "--part"; "unit" ] "by dotnet"
              Expect.equal (Summary.argumentsOf "/out/Tests" "Tests.dll" "unit") [ "--part"; "unit" ] "by itself"
          } ]
