// Runs the catalogue's encoders by hand in ONNX Runtime, preprocessing included, and compares with what `cmcl extract` wrote: one model of each kind.
//
//     npm install onnxruntime-node@1.30.0 && node reference.cjs WORK CMCL...
//
// WORK is a folder to write into; CMCL is how the command is called, such as `dotnet cli/bin/Release/net10.0/Cmcl.Cli.dll`.
const ort = require('onnxruntime-node'), fs = require('fs'), path = require('path'), zlib = require('zlib')
const { execFileSync } = require('child_process')
const [work, ...cmcl] = process.argv.slice(2)
const run = (...args) => execFileSync(cmcl[0], [...cmcl.slice(1), ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
fs.mkdirSync(work, { recursive: true })
const at = name => path.join(work, name)

// A stream of numbers that is the same everywhere.
let state = 1
const random = () => (state = (state * 48271) % 2147483647) / 2147483647

// ---- .npy, PNG with alpha, WAV ------------------------------------------------------------------------------------

const npy = file => {
  const b = fs.readFileSync(file), n = b.readUInt16LE(8), shape = b.subarray(10, 10 + n).toString().match(/\((\d+), (\d+)\)/)
  return { rows: +shape[1], columns: +shape[2], data: new Float32Array(b.buffer.slice(b.byteOffset + 10 + n)) }
}

const png = (file, side, pixel) => {
  const raw = Buffer.alloc(side * (1 + 4 * side))
  for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) Buffer.from(pixel(y, x)).copy(raw, y * (1 + 4 * side) + 1 + 4 * x)
  const chunk = (type, data) => {
    const head = Buffer.from(type), length = Buffer.alloc(4), crc = Buffer.alloc(4)
    length.writeUInt32BE(data.length); crc.writeUInt32BE(zlib.crc32(Buffer.concat([head, data])))
    return Buffer.concat([length, head, data, crc])
  }
  const size = Buffer.alloc(13); size.writeUInt32BE(side, 0); size.writeUInt32BE(side, 4); size.set([8, 6, 0, 0, 0], 8)
  fs.writeFileSync(file, Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), chunk('IHDR', size), chunk('IDAT', zlib.deflateSync(raw)), chunk('IEND', Buffer.alloc(0))]))
}

const wav = (file, samples) => {
  const b = Buffer.alloc(44 + 2 * samples.length)
  b.write('RIFF', 0); b.writeUInt32LE(36 + 2 * samples.length, 4); b.write('WAVEfmt ', 8); b.writeUInt32LE(16, 16); b.writeUInt16LE(1, 20); b.writeUInt16LE(1, 22)
  b.writeUInt32LE(16000, 24); b.writeUInt32LE(32000, 28); b.writeUInt16LE(2, 32); b.writeUInt16LE(16, 34); b.write('data', 36); b.writeUInt32LE(2 * samples.length, 40)
  samples.forEach((x, i) => b.writeInt16LE(x, 44 + 2 * i)); fs.writeFileSync(file, b)
}

// ---- by hand ------------------------------------------------------------------------------------------------------

const session = file => ort.InferenceSession.create(file, { intraOpNumThreads: 1 })

// BERT's tokens: words and punctuation, then the longest pieces of the vocabulary.
const wordpiece = vocab => {
  const ids = new Map(fs.readFileSync(vocab, 'utf8').split(/\r?\n/).map((token, i) => [token, i]))
  return text => {
    const words = text.toLowerCase().normalize('NFD').replace(/\p{Mn}/gu, '').match(/[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu) || []
    const pieces = words.flatMap(word => {
      const found = []
      for (let from = 0; from < word.length;) {
        let to = word.length
        while (to > from && !ids.has((from ? '##' : '') + word.slice(from, to))) to--
        if (to === from) return [ids.get('[UNK]')]
        found.push(ids.get((from ? '##' : '') + word.slice(from, to))); from = to
      }
      return found
    })
    return [ids.get('[CLS]'), ...pieces, ids.get('[SEP]')]
  }
}

// The mean of all tokens, or the first.
const texts = (name, mean) => async folder => {
  const model = await session(path.join(folder, 'model.onnx')), tokens = wordpiece(path.join(folder, 'vocab.txt'))
  const items = ['That is a happy person', 'a café, crème brûlée & 3 apples!', 'unbelievably long antidisestablishmentarianism', 'x']
  fs.writeFileSync(at('texts.jsonl'), items.map((text, i) => JSON.stringify({ id: `${i}`, text })).join('\n') + '\n')
  const rows = []
  for (const text of items) {
    const ids = tokens(text), row = values => new ort.Tensor('int64', BigInt64Array.from(values.map(BigInt)), [1, ids.length])
    const states = (await model.run({ input_ids: row(ids), attention_mask: row(ids.map(() => 1)), token_type_ids: row(ids.map(() => 0)) })).last_hidden_state.data
    rows.push(Float64Array.from({ length: 384 }, (_, c) => mean ? ids.reduce((sum, _, t) => sum + states[t * 384 + c], 0) / ids.length : states[c]))
  }
  return [name, 'texts.jsonl', rows]
}

const pictures = async folder => {
  const before = await session(path.join(folder, 'ResNetPreprocess.onnx')), net = await session(path.join(folder, 'ResNet18.onnx'))
  const side = 224, rows = [], lines = ['id,path']
  for (let k = 0; k < 3; k++) {
    const pixels = Array.from({ length: side * side }, (_, i) => [(i * (k + 1)) % 256, Math.floor(i / side) % 256, Math.floor(256 * random()), k === 0 ? 255 : Math.floor(256 * random())])
    png(at(`${k}.png`), side, (y, x) => pixels[y * side + x]); lines.push(`${k},${k}.png`)
    // Over white, rounded to the nearest.
    const x = Float32Array.from({ length: 3 * side * side }, (_, j) => { const c = Math.floor(j / (side * side)), [r, g, b, a] = pixels[j % (side * side)]; return Math.round(([r, g, b][c] * a + 255 * (255 - a)) / 255) })
    const y = (await before.run({ [before.inputNames[0]]: new ort.Tensor('float32', x, [1, 3, side, side]) }))[before.outputNames[0]]
    rows.push(Float64Array.from((await net.run({ [net.inputNames[0]]: y }))[net.outputNames[0]].data))
  }
  fs.writeFileSync(at('pictures.csv'), lines.join('\n') + '\n')
  return ['resnet18', 'pictures.csv', rows]
}

const sounds = async folder => {
  const mel = await session(path.join(folder, 'melspectrogram.onnx')), net = await session(path.join(folder, 'embedding_model.onnx')), rows = [], lines = ['id,path']
  for (let k = 0; k < 3; k++) {
    const own = Array.from({ length: 12000 + 9000 * k }, (_, i) => Math.round(12000 * Math.sin(i * (0.02 + 0.01 * k) * (1 + i / 40000)) * (0.5 + 0.5 * random())))
    // It begins and ends loud, so that there is no silence to cut off.
    own[0] = own[own.length - 1] = 12000; for (let i = 0; i < 300; i++) { own[i] = own[i] || 900; own[own.length - 1 - i] = own[own.length - 1 - i] || 900 }
    wav(at(`${k}.wav`), own); lines.push(`${k},${k}.wav`)
    const largest = own.reduce((m, x) => Math.max(m, Math.abs(x)), 0), silence = 6400
    const n = Math.max(own.length + 2 * silence, 20800), x = new Float32Array(n)
    own.forEach((v, i) => { x[silence + i] = v / largest * 0.6 * 32767 })
    const y = (await mel.run({ [mel.inputNames[0]]: new ort.Tensor('float32', x, [1, n]) }))[mel.outputNames[0]].data, frames = y.length / 32
    const count = Math.floor((frames - 76) / 8) + 1, windows = new Float32Array(count * 76 * 32)
    for (let w = 0; w < count; w++) for (let i = 0; i < 76 * 32; i++) windows[w * 76 * 32 + i] = y[w * 8 * 32 + i] / 10 + 2
    const e = (await net.run({ [net.inputNames[0]]: new ort.Tensor('float32', windows, [count, 76, 32, 1]) }))[net.outputNames[0]].data
    rows.push(Float64Array.from({ length: 288 }, (_, j) => {
      const part = Math.floor(j / 96), from = Math.min(count - 1, Math.floor(count * part / 3)), to = Math.max(from + 1, Math.floor(count * (part + 1) / 3))
      let sum = 0; for (let w = from; w < to; w++) sum += e[w * 96 + j % 96]
      return sum / (to - from)
    }))
  }
  fs.writeFileSync(at('sounds.csv'), lines.join('\n') + '\n')
  return ['speech-embedding', 'sounds.csv', rows]
}

;(async () => {
  let failed = false
  for (const [encoder, byHand] of [['minilm', texts('minilm', true)], ['arctic-xs', texts('arctic-xs', false)], ['resnet18', pictures], ['speech-embedding', sounds]]) {
    const folder = path.dirname(run('encoders', 'get', encoder).trim())
    const [name, manifest, rows] = await byHand(folder)
    run('extract', name, at(manifest), '-o', at(name + '.npy'), '--force', '--quiet')
    const ours = npy(at(name + '.npy'))
    let worst = 0
    rows.forEach((row, i) => {
      const length = Math.sqrt(row.reduce((s, x) => s + x * x, 0))
      row.forEach((x, c) => { worst = Math.max(worst, Math.abs(x - ours.data[i * ours.columns + c]) / length) })
    })
    const fits = ours.rows === rows.length && ours.columns === rows[0].length && worst < 1e-5
    failed = failed || !fits
    console.log(`${name}: ${ours.rows} × ${ours.columns}, largest difference ${worst.toExponential(1)} of a row's length${fits ? '' : ' — not equal'}`)
  }
  process.exit(failed ? 1 : 0)
})()
