// Reads one simulation a line (JSON) and writes its result a line: Allowed, ExplicitlyDenied, ImplicitlyDenied or an error.
// The engine itself is asked: the package's own entrance takes session policies only with validation against AWS's lists.
import readline from 'node:readline'
import { loadPolicy } from '@cloud-copilot/iam-policy'

const inside = new URL('node_modules/@cloud-copilot/iam-simulate/dist/esm/', import.meta.url)
const { authorize } = await import(new URL('core_engine/CoreSimulatorEngine.js', inside))
const { AwsRequestImpl } = await import(new URL('request/request.js', inside))
const { RequestContextImpl } = await import(new URL('requestContext.js', inside))
const { DiscoveryContextKeyConstraints } = await import(new URL('context_keys/discoveryContextKeyConstraints.js', inside))

function load(policy, name) {
  return policy ? loadPolicy(policy, { name }) : undefined
}

function decide({ request, identity, boundary, session, resource }) {
  return authorize({
    request: new AwsRequestImpl(request.principal, request.resource, request.action, new RequestContextImpl(request.context)),
    identityPolicies: identity.map((policy, index) => load(policy, `identity-${index}`)),
    permissionBoundaries: boundary ? [load(boundary, 'boundary')] : undefined,
    sessionPolicy: load(session, 'session'),
    resourcePolicy: load(resource, 'resource'),
    serviceControlPolicies: [],
    resourceControlPolicies: [],
    vpcEndpointPolicies: undefined,
    simulationParameters: {
      simulationMode: 'Strict',
      discoveryContextKeyConstraints: new DiscoveryContextKeyConstraints([]),
    },
    serviceSettings: { s3: {} },
  }).result
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  let answer
  try {
    answer = decide(JSON.parse(line))
  } catch (error) {
    answer = `error: ${error.message}`
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
