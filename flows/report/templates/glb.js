"use strict";

/** glTF component types: the array that holds them and the divisor of normalized values. */
const COMPONENTS = {
  5120: [Int8Array, 127], 5121: [Uint8Array, 255], 5122: [Int16Array, 32767],
  5123: [Uint16Array, 65535], 5125: [Uint32Array, 4294967295], 5126: [Float32Array, 1],
};
const WIDTHS = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };

/** A binary glTF 2.0 as {json, binary}. Throws an Error that says why it cannot be read. */
function parseGlb(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength < 20 || view.getUint32(0, true) !== 0x46546c67) throw new Error("it is no binary glTF file");
  let json = null, binary = new Uint8Array(0);
  for (let at = 12; at + 8 <= bytes.byteLength;) {
    const length = view.getUint32(at, true), kind = view.getUint32(at + 4, true);
    const chunk = bytes.subarray(at + 8, at + 8 + length);
    if (kind === 0x4e4f534a) json = JSON.parse(new TextDecoder().decode(chunk));
    else if (kind === 0x004e4942) binary = chunk;
    at += 8 + length;
  }
  if (json === null) throw new Error("it holds no scene");
  return { json, binary };
}

/** An accessor's numbers: Float32Array for vertex data (normalized values scaled), Uint32Array for indices. */
function readAccessor(glb, number, Kind) {
  const accessor = glb.json.accessors[number], view = glb.json.bufferViews[accessor.bufferView];
  const [Stored, divisor] = COMPONENTS[accessor.componentType];
  const width = WIDTHS[accessor.type], size = Stored.BYTES_PER_ELEMENT;
  const stride = view.byteStride || width * size;
  const start = (view.byteOffset || 0) + (accessor.byteOffset || 0);
  const values = new Kind(accessor.count * width);
  const element = new Stored(width), raw = new Uint8Array(element.buffer);
  for (let row = 0; row < accessor.count; row++) {
    raw.set(glb.binary.subarray(start + row * stride, start + row * stride + width * size));
    for (let k = 0; k < width; k++) values[row * width + k] = accessor.normalized ? element[k] / divisor : element[k];
  }
  return values;
}

/** A node's own 4x4 matrix, column-major. */
function nodeMatrix(node) {
  if (node.matrix) return node.matrix;
  const [x, y, z, w] = node.rotation || [0, 0, 0, 1], [a, b, c] = node.scale || [1, 1, 1], t = node.translation || [0, 0, 0];
  return [
    (1 - 2 * (y * y + z * z)) * a, 2 * (x * y + z * w) * a, 2 * (x * z - y * w) * a, 0,
    2 * (x * y - z * w) * b, (1 - 2 * (x * x + z * z)) * b, 2 * (y * z + x * w) * b, 0,
    2 * (x * z + y * w) * c, 2 * (y * z - x * w) * c, (1 - 2 * (x * x + y * y)) * c, 0,
    ...t, 1,
  ];
}

/** Every triangle primitive of the scene as {positions, normals, uvs, tangents, material}: three corners a triangle, world space. */
function scenePrimitives(glb) {
  const { json } = glb, found = [];
  const visit = (number, parent) => {
    const node = json.nodes[number], matrix = multiply(parent, nodeMatrix(node));
    if (node.mesh !== undefined) {
      for (const primitive of json.meshes[node.mesh].primitives) {
        if ((primitive.mode ?? 4) === 4) found.push(unfolded(glb, primitive, matrix));
      }
    }
    (node.children || []).forEach((child) => visit(child, matrix));
  };
  const scene = (json.scenes || [])[json.scene || 0];
  (scene ? scene.nodes : []).forEach((root) => visit(root, IDENTITY));
  if (!found.length) throw new Error("it holds no triangles");
  return found;
}

function unfolded(glb, primitive, matrix) {
  const attributes = primitive.attributes;
  const positions = readAccessor(glb, attributes.POSITION, Float32Array);
  const corners = primitive.indices === undefined
    ? Uint32Array.from({ length: positions.length / 3 }, (_, k) => k) : readAccessor(glb, primitive.indices, Uint32Array);
  const read = (name) => attributes[name] === undefined ? null : readAccessor(glb, attributes[name], Float32Array);
  const spread = (values, width) => {
    const out = new Float32Array(corners.length * width);
    if (values) corners.forEach((corner, k) => { for (let i = 0; i < width; i++) out[k * width + i] = values[corner * width + i]; });
    return out;
  };
  const normals = read("NORMAL"), tangents = read("TANGENT");
  const part = {
    positions: moved(spread(positions, 3), 3, matrix, 1), normals: moved(spread(normals, 3), 3, matrix, 0),
    uvs: spread(read("TEXCOORD_0"), 2), tangents: tangents && moved(spread(tangents, 4), 4, matrix, 0),
    material: (glb.json.materials || [])[primitive.material] || {},
  };
  if (!normals) part.normals = flatNormals(part.positions);
  return part;
}

/** Vectors of the given width turned by a matrix, in place; w 1 for places, 0 for directions (uniform scale is assumed). */
function moved(values, width, m, w) {
  for (let k = 0; k < values.length; k += width) {
    const x = values[k], y = values[k + 1], z = values[k + 2];
    for (let i = 0; i < 3; i++) values[k + i] = m[i] * x + m[4 + i] * y + m[8 + i] * z + m[12 + i] * w;
  }
  return values;
}

function flatNormals(positions) {
  const normals = new Float32Array(positions.length);
  for (let k = 0; k < positions.length; k += 9) {
    const p = (i) => positions.subarray(k + 3 * i, k + 3 * i + 3);
    const normal = cross(minus(p(1), p(0)), minus(p(2), p(0)));
    for (let i = 0; i < 9; i++) normals[k + i] = normal[i % 3];
  }
  return normals;
}

/** The picture of a texture, decoded without colour conversion; null without one. */
async function texturePicture(glb, reference) {
  if (!reference) return null;
  const image = glb.json.images[glb.json.textures[reference.index].source];
  const view = glb.json.bufferViews[image.bufferView], start = view.byteOffset || 0;
  const blob = new Blob([glb.binary.slice(start, start + view.byteLength)], { type: image.mimeType });
  return createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
}

const IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
const minus = (a, b) => [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => { const length = Math.hypot(...a) || 1; return a.map((x) => x / length); };

/** The product of two column-major 4x4 matrices. */
function multiply(a, b) {
  const out = new Array(16).fill(0);
  for (let c = 0; c < 4; c++) for (let r = 0; r < 4; r++) for (let k = 0; k < 4; k++) out[4 * c + r] += a[4 * k + r] * b[4 * c + k];
  return out;
}
